package service

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
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
	print := s.options.Sources.Fingerprint()
	s.mu.Lock()
	same, old := print == s.print, s.settings
	s.print = print
	s.mu.Unlock()
	if same {
		return
	}
	settings, problems := config.Reload(old, s.options.Sources)
	s.mu.Lock()
	s.settings, s.problems = settings, problems
	client := s.client
	if !sameWay(old, settings) {
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
	s.showProblems()
	s.pokeContact()
}

// showProblems makes conditions of what is wrong with the settings.
func (s *Service) showProblems() {
	s.mu.Lock()
	problems := s.problems
	s.mu.Unlock()
	texts := map[enroll.Code][]string{}
	for _, p := range problems {
		code := status.SettingsInvalid
		if p.Source != config.FromFlag && strings.Contains(p.Wrong, "another user") {
			code = status.SettingsInsecure
		}
		texts[code] = append(texts[code], p.String())
		s.log.Error("setting refused", "setting", p.Setting, "source", p.Source, "error", p.String())
		s.event(eventSettingsRejected, outcomeFailure, "code", string(code), "detail", p.String())
	}
	for _, code := range []enroll.Code{status.SettingsInvalid, status.SettingsInsecure} {
		if t := texts[code]; len(t) > 0 {
			s.wrong.raise(code, strings.Join(t, " "))
		} else {
			s.wrong.clear(code)
		}
	}
}

// controlClient is the way to central management under the present settings.
func (s *Service) controlClient() (*control.Client, error) {
	s.mu.Lock()
	client, settings, memory := s.client, s.settings, s.memory
	s.mu.Unlock()
	if client != nil {
		return client, nil
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
	s.mu.Unlock()
	return client, nil
}

func readAnchors(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	anchors, _, err := platform.ReadTrusted(path, 1<<20)
	if err != nil {
		return nil, &enroll.Error{Kind: enroll.Waiting, Code: control.CodeUnconfigured, Err: err,
			Hint: "The file that the setting server_ca names cannot be used. It must be readable, and writable by administrators only."}
	}
	return anchors, nil
}

func pins(s config.Settings) []string {
	all := make([]string, 0, len(s.ServerPins))
	for _, p := range s.ServerPins {
		all = append(all, p.String())
	}
	return all
}

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
		return p, &enroll.Error{Kind: enroll.Waiting, Code: control.CodeUnconfigured, Err: err,
			Hint: "The file that the setting proxy_password_file names cannot be used. It must hold one line, and only the service may read it."}
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

// token is the join token, if there is one.
func (s *Service) token() string {
	settings := s.current()
	if settings.JoinToken != "" {
		return settings.JoinToken.Reveal()
	}
	if settings.JoinTokenFile == "" {
		return ""
	}
	token, err := config.ReadSecretFile(settings.JoinTokenFile)
	switch {
	case errors.Is(err, platform.ErrNotFound): // it has done its work
	case err != nil:
		s.log.Error("join token not read", "file", settings.JoinTokenFile, "error", err)
		s.wrong.raise(status.SettingsInsecure, "The join token's file cannot be used: it must hold one line, and only the service may read it.")
	}
	return token.Reveal()
}

// forgetToken removes the join token's file once it has done its work. A token
// that stands in settings is the administrator's to remove.
func (s *Service) forgetToken() {
	file := s.current().JoinTokenFile
	if file == "" {
		return
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Error("join token not removed", "file", file, "error", err)
	}
}

// showContact makes a condition of what kept us from central management the
// last time; whatever else that was before is over.
func (s *Service) showContact(err error) {
	var code enroll.Code
	if err != nil {
		if e := enroll.AsError(err); e.Code != enroll.CodeInternal {
			code = e.Code
			s.wrong.raise(code, e.Hint)
		}
	}
	s.mu.Lock()
	before := s.contactWrong
	s.contactWrong = code
	s.mu.Unlock()
	if before != "" && before != code {
		s.wrong.clear(before)
	}
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
