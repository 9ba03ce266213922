package service

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"smime-agent/agent/config"
	"smime-agent/agent/control"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform"
)

func (s *Service) current() config.Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settings
}

// reloadSettings takes settings that have changed, without a restart. What is
// wrong becomes a condition, and the last good value stays in force.
func (s *Service) reloadSettings() {
	s.takeHandover()
	old := s.current()
	print, files := s.options.Sources.Fingerprint(), fileStamps(old)
	s.mu.Lock()
	same, sameFiles := print == s.print && files == s.files, files == s.files
	s.mu.Unlock()
	if same {
		return
	}
	settings, problems := config.Reload(old, s.options.Sources)
	s.mu.Lock()
	s.print, s.files = print, fileStamps(settings)
	s.settings, s.problems = settings, problems
	client := s.client
	if !sameFiles || !sameWay(old, settings) {
		s.client = nil // the next contact makes another
	} else {
		client = nil
	}
	s.failures = 0
	s.mu.Unlock()
	if client != nil {
		_ = client.Close()
	}
	s.logs.level.Set(settings.LogLevel)
	s.pace.SetLimit(rate.Every(settings.SyncFloor))
	s.log.Info("settings in force")
	s.event(eventSettingsChanged, outcomeSuccess)
	s.reportProblems()
	s.pokeContact()
}

// fileStamps tells one state of the files that settings name from another.
func fileStamps(s config.Settings) string {
	var stamps strings.Builder
	for _, path := range []string{s.ServerCA, s.JoinTokenFile, s.ProxyPasswordFile} {
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintf(&stamps, "%s %d %v", info.ModTime(), info.Size(), info.Mode())
		}
		stamps.WriteByte('\n')
	}
	return stamps.String()
}

// reportProblems tells what is wrong with the settings: once in the log and the
// audit trail, and as conditions for as long as it lasts.
func (s *Service) reportProblems() {
	s.mu.Lock()
	problems := s.problems
	s.mu.Unlock()
	for _, p := range problems {
		s.log.Error("setting refused", "setting", p.Setting, "source", p.Source, "error", p.String())
		s.event(eventSettingsRejected, outcomeFailure, "code", string(codeOf(p)), "detail", p.String())
	}
	s.showProblems()
}

// showProblems makes conditions of what is wrong with the settings. What keeps
// us from central management is told with that, and not twice.
func (s *Service) showProblems() {
	s.mu.Lock()
	problems, told := s.problems, s.hindrance == control.CodeUnconfigured
	s.mu.Unlock()
	texts := map[enroll.Code][]string{}
	for _, p := range problems {
		if code := codeOf(p); code != status.SettingsInvalid || !told || !slices.Contains(waySettings, p.Setting) {
			texts[code] = append(texts[code], p.String())
		}
	}
	for _, code := range []enroll.Code{status.SettingsInvalid, status.SettingsInsecure} {
		if t := texts[code]; len(t) > 0 {
			s.wrong.raise(code, strings.Join(t, " "))
		} else {
			s.wrong.clear(code)
		}
	}
}

func codeOf(p config.Problem) enroll.Code {
	if p.Insecure {
		return status.SettingsInsecure
	}
	return status.SettingsInvalid
}

// waySettings are those without which there is no way to central management; the
// empty name is that of a whole source.
var waySettings = []string{"", "server", "server_ca", "server_pin", "proxy", "proxy_user", "proxy_password_file"}

// controlClient is the way to central management under the present settings.
func (s *Service) controlClient() (*control.Client, error) {
	s.mu.Lock()
	client, settings, memory := s.client, s.settings, s.memory
	s.mu.Unlock()
	if client != nil {
		return client, nil
	}
	if err := s.unconfigured(settings); err != nil {
		return nil, err
	}
	anchors, err := readAnchors(settings.ServerCA)
	if err != nil {
		return nil, err
	}
	proxy, err := proxyOf(settings)
	if err != nil {
		return nil, err
	}
	client, err = control.New(control.Config{
		Address: settings.Server, Anchors: anchors, Pins: pins(settings), Token: s.token, Proxy: proxy,
		Facts: s.controlFacts(), Secrets: s.secrets, Absent: absent, Now: time.Now,
		Offset: memory.Offset, NotBefore: memory.Contact,
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.client = client
	s.clock.Store(client)
	s.mu.Unlock()
	return client, nil
}

// unconfigured says in one sentence what a fresh installation lacks, and where
// it belongs.
func (s *Service) unconfigured(settings config.Settings) error {
	var missing []string
	if settings.Server == "" {
		missing = append(missing, "server")
	}
	if settings.ServerCA == "" && len(settings.ServerPins) == 0 {
		missing = append(missing, "server_ca or server_pin")
	}
	if len(missing) == 0 {
		return nil
	}
	s.mu.Lock()
	problems := s.problems
	s.mu.Unlock()
	for _, p := range problems {
		if slices.Contains(waySettings, p.Setting) {
			return unusable(p.String(), errors.New("a setting cannot be used"))
		}
	}
	return unusable(fmt.Sprintf("Not set yet: %s. The settings file is %s; managed policy wins over it.",
		strings.Join(missing, ", "), s.options.Sources.File), errors.New("settings are missing"))
}

// unusable is an error of the settings of the way; hint is for people.
func unusable(hint string, err error) *enroll.Error {
	return &enroll.Error{Kind: enroll.Waiting, Code: control.CodeUnconfigured, Hint: hint, Err: err}
}

func readAnchors(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	anchors, _, err := platform.ReadTrusted(path, 1<<20)
	if err != nil {
		return nil, unusable(fileFault("server_ca", path, "It must be a PEM file that only administrators can write.", err), err)
	}
	return anchors, nil
}

// fileFault says what is wrong with a file that a setting names.
func fileFault(setting, path, must string, err error) string {
	wrong := "cannot be used"
	switch {
	case errors.Is(err, platform.ErrNotFound):
		return fmt.Sprintf("The file %s, which the setting %s names, is not there.", path, setting)
	case errors.Is(err, fs.ErrPermission):
		wrong = "cannot be read by the service"
	case errors.Is(err, platform.ErrDenied):
		wrong = "is open to other users, or lies in a folder that is"
	}
	return fmt.Sprintf("The file %s, which the setting %s names, %s. %s", path, setting, wrong, must)
}

func pins(s config.Settings) []control.Pin {
	all := make([]control.Pin, 0, len(s.ServerPins))
	for _, p := range s.ServerPins {
		all = append(all, control.Pin(p))
	}
	return all
}

// secretFile is what a file with a secret must be.
const secretFile = "It must hold one line, and only the service may read it (chmod 600)."

func proxyOf(s config.Settings) (control.Proxy, error) {
	p := control.Proxy{URL: string(s.Proxy.Mode), User: s.ProxyUser}
	if s.Proxy.Mode == config.ProxyURL {
		p.URL = s.Proxy.URL.String()
	}
	if s.ProxyPasswordFile == "" {
		return p, nil
	}
	secret, err := config.ReadSecretFile(s.ProxyPasswordFile)
	if err != nil {
		return p, unusable(fileFault("proxy_password_file", s.ProxyPasswordFile, secretFile, err), err)
	}
	p.Password = secret.Reveal()
	return p, nil
}

// sameWay says that a connection made under one can serve under the other.
func sameWay(a, b config.Settings) bool {
	way := func(s config.Settings) string {
		return fmt.Sprintf("%q %q %q %q %q %q %q %q", s.Server, s.ServerCA, s.ServerPins, s.JoinToken.Reveal(),
			s.JoinTokenFile, s.Proxy, s.ProxyUser, s.ProxyPasswordFile)
	}
	return way(a) == way(b)
}

func absent(err error) bool { return errors.Is(err, platform.ErrNotFound) }

func (s *Service) controlFacts() control.Facts {
	f := control.Facts{
		Hostname: s.machine.Hostname, OS: s.machine.OS, OSVersion: s.machine.Version, AgentVersion: s.options.Version,
	}
	if s.machine.ID != "" {
		// machine-id(5) asks not to hand the ID itself out.
		sum := sha256.Sum256([]byte("smime-agent machine\x00" + s.machine.ID))
		f.MachineIDHash = hex.EncodeToString(sum[:])
	}
	return f
}

// showContact makes a condition of what keeps us from central management, in
// place of what did so before.
func (s *Service) showContact(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	var code enroll.Code
	var detail string
	if err != nil {
		e := enroll.AsError(err)
		code, detail = e.Code, more(e.Code, e.Hint)
	}
	s.mu.Lock()
	before := s.hindrance
	s.hindrance = code
	if code == control.CodeNotJoined && s.noToken != "" {
		detail = s.noToken
	}
	s.mu.Unlock()
	if before != code {
		s.wrong.clear(before)
	}
	if code != "" {
		s.wrong.raise(code, detail)
	}
	s.showProblems()
}

// more is what a hint tells beyond the condition's own sentences: not what to do,
// and nothing where those say all.
func more(code enroll.Code, hint string) string {
	switch code {
	case control.CodeDevicePending, control.CodeDeviceRefused, control.CodeMachineCloned, control.CodeIdentityExpired,
		control.CodeIdentityRefused, control.CodeSecretsFailed, control.CodePolicyUnusable, enroll.CodeControlOverloaded:
		return ""
	case control.CodeUnconfigured:
		return hint // names the setting, and what it must be
	default:
	}
	if i := strings.LastIndex(hint, ". "); i > 0 {
		return hint[:i+1]
	}
	return hint
}

// authority lets the engine use whichever client serves now.
type authority struct{ s *Service }

func (a authority) client() (*control.Client, error) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	if a.s.client == nil {
		return nil, &enroll.Error{Kind: enroll.Transient, Code: enroll.CodeControlUnreachable,
			Hint: "Central management has not been reached yet. The agent tries again by itself."}
	}
	return a.s.client, nil
}

// Submit hands a CSR in.
func (a authority) Submit(ctx context.Context, x enroll.Submission) (enroll.Receipt, error) {
	c, err := a.client()
	if err != nil {
		return enroll.Receipt{}, err
	}
	return c.Submit(ctx, x)
}

// Collect asks what became of it.
func (a authority) Collect(ctx context.Context, reference string) (enroll.Collection, error) {
	c, err := a.client()
	if err != nil {
		return enroll.Collection{}, err
	}
	return c.Collect(ctx, reference)
}
