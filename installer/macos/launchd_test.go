package macos

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"howett.net/plist"
)

// job is what we use of launchd.plist(5); any other key is refused below.
type job struct {
	Label                  string
	ProgramArguments       []string
	RunAtLoad              bool
	KeepAlive              any
	ThrottleInterval       int
	Umask                  int
	ExitTimeOut            int
	ProcessType            string
	StandardErrorPath      string
	LimitLoadToSessionType string
}

func readJob(t *testing.T, path string) (job, []string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var j job
	if format, err := plist.Unmarshal(data, &j); err != nil || format != plist.XMLFormat {
		t.Fatalf("%s: format %d, %v", path, format, err)
	}
	var all map[string]any
	if _, err := plist.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for key := range all {
		keys = append(keys, key)
	}
	return j, keys
}

// complaints judges a job as launchd and faults of other agents demand.
func complaints(j job, file string, keys []string) []string {
	var found []string
	expect := func(ok bool, what string) {
		if !ok {
			found = append(found, what)
		}
	}
	expect(j.Label+".plist" == filepath.Base(file), "the label is not the file's name")
	expect(strings.HasPrefix(j.Label, "org.smime-agent"), "management cannot know the label by its prefix")
	expect(len(j.ProgramArguments) > 0 && strings.HasPrefix(j.ProgramArguments[0], "/opt/smime-agent/bin/"),
		"the program does not lie where only root can write")
	expect(j.RunAtLoad, "it does not start by itself")
	expect(j.KeepAlive != nil && j.KeepAlive != false, "it does not start again")
	expect(j.ThrottleInterval >= 10, "it starts again at once")
	expect(j.Umask == 0o077, "others can read what it writes")
	expect(j.ProcessType == "Background", "it is no background process")
	expect(j.StandardErrorPath == "" || strings.HasPrefix(j.StandardErrorPath, "/var/log/"), "its complaints go where others can write")
	for _, key := range keys {
		_, known := reflect.TypeFor[job]().FieldByName(key)
		expect(known, key+" is set")
	}
	again, isDict := j.KeepAlive.(map[string]any)
	expect(!isDict || len(again) == 1 && again["SuccessfulExit"] == false, "it starts again for another reason than a failure")
	return found
}

func TestJobs(t *testing.T) {
	const daemon, agent = "LaunchDaemons/org.smime-agent.plist", "LaunchAgents/org.smime-agent.helper.plist"
	for _, file := range []string{daemon, agent} {
		j, keys := readJob(t, file)
		for _, c := range complaints(j, file, keys) {
			t.Errorf("%s: %s", file, c)
		}
		if session := j.LimitLoadToSessionType; session != "" != (file == agent) || file == agent && session != "Aqua" {
			t.Errorf("%s: session type %q", file, session)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o133 != 0 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	for _, dir := range []string{"LaunchDaemons", "LaunchAgents"} {
		if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
			t.Errorf("%s has %d files, %v", dir, len(all), err)
		}
	}
	// kardianos/service asks launchd for this name.
	source, err := os.ReadFile("../../platform/paths_darwin.go")
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`Service:\s+"([^"]+)"`).FindSubmatch(source)
	if j, _ := readJob(t, daemon); name == nil || string(name[1]) != j.Label {
		t.Errorf("the service is called %q in launchd and %s in platform", j.Label, name)
	}
}

// TestJobsCatches plants what the check is for.
func TestJobsCatches(t *testing.T) {
	const file = "LaunchDaemons/org.smime-agent.plist"
	for what, spoil := range map[string]func(*job) []string{
		"label":          func(j *job) []string { j.Label = "smime-agent"; return nil },
		"program":        func(j *job) []string { j.ProgramArguments[0] = "/usr/local/bin/smime-agent"; return nil },
		"start again":    func(j *job) []string { j.KeepAlive = nil; return nil },
		"others":         func(j *job) []string { j.Umask = 0o22; return nil },
		"Session":        func(*job) []string { return []string{"SessionCreate"} },
		"Environment":    func(*job) []string { return []string{"EnvironmentVariables"} },
		"KeepAlives":     func(*job) []string { return []string{"KeepAlives"} },
		"another reason": func(j *job) []string { j.KeepAlive = map[string]any{"Crashed": true}; return nil },
	} {
		j, keys := readJob(t, file)
		more := spoil(&j)
		if found := complaints(j, file, append(keys, more...)); len(found) == 0 || !strings.Contains(strings.Join(found, "; "), what) {
			t.Errorf("%s went unnoticed: %q", what, found)
		}
	}
}

var (
	command  = regexp.MustCompile(`(/(?:usr/)?s?bin/\w+)`)
	bare     = regexp.MustCompile(`(?m)(?:^|[|;(!]|\|\||&&|then|do|until|while|if)\s*(launchctl|ps|awk|grep|sleep)\s`)
	harmless = []string{"/bin/launchctl", "/bin/ps", "/usr/bin/awk", "/usr/bin/grep", "/bin/sleep"}
)

// TestScripts: what runs as root at installation parses, names programs by their
// whole paths, and starts and stops our jobs and nothing else.
func TestScripts(t *testing.T) {
	for _, name := range []string{"preinstall", "postinstall"} {
		path := filepath.Join("scripts", name)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "sh", "-n", path).CombinedOutput(); err != nil {
			t.Errorf("%s: %s", name, out)
		}
		_, script, _ := strings.Cut(string(data), "\n") // without the line that names the shell
		found := command.FindAllString(script, -1)
		if len(found) < 5 {
			t.Errorf("%s: only %d commands", name, len(found))
		}
		for _, c := range found {
			if !slices.Contains(harmless, c) {
				t.Errorf("%s runs %s", name, c)
			}
		}
		if b := bare.FindString(script); b != "" {
			t.Errorf("%s: %q is not called by its whole path", name, b)
		}
		for line := range strings.Lines(script) {
			if strings.Contains(line, "launchctl") && !strings.Contains(strings.ReplaceAll(line, "\\", ""), "org.smime-agent") {
				t.Errorf("%s: not about our jobs: %s", name, line)
			}
			for _, word := range []string{"curl", "rm ", "chmod", "chown", "sudo", "$HOME", "~/"} {
				if strings.Contains(line, word) {
					t.Errorf("%s: %s", name, line)
				}
			}
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o111 == 0 {
			t.Errorf("%s cannot be run: %v", name, err)
		}
	}
}
