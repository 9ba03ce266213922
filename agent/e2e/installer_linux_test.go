package e2e_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"smime-agent/platform/platformtest"
)

const (
	installer        = "../../installer/linux"
	centralInstaller = installer + "/central"
)

// hardened is what the service's unit must say (systemd.exec(5)). A line may go
// only if the service cannot work with it.
var hardened = []string{
	"NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes", "PrivateDevices=yes", "CapabilityBoundingSet=",
	"RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6", "RestrictNamespaces=yes", "MemoryDenyWriteExecute=yes",
	"SystemCallFilter=@system-service", "UMask=0077", "RuntimeDirectory=smime-agent", "StateDirectory=smime-agent", "StateDirectoryMode=0700",
	"Restart=on-failure", "WantedBy=multi-user.target",
}

func TestUnitIsHardened(t *testing.T) {
	unit := strings.Split(read(filepath.Join(installer, agentUnit)), "\n")
	for _, line := range append(hardened, "MemoryMax=", "TasksMax=") {
		limit := strings.HasPrefix(line, "MemoryMax") || strings.HasPrefix(line, "TasksMax")
		if !slices.ContainsFunc(unit, func(l string) bool { return l == line || limit && strings.HasPrefix(l, line) }) {
			t.Errorf("%s has no line %s", agentUnit, line)
		}
	}
}

// TestExposure is systemd's own word on both units; and a unit without its sandbox must fail.
func TestExposure(t *testing.T) {
	platformtest.NeedPrograms(t, "systemd-analyze")
	unit := filepath.Join(installer, agentUnit)
	for path, worst := range map[string]string{unit: worstExposure, filepath.Join(centralInstaller, centralUnit): worstCentralExposure} {
		if out, err := analyze(path, worst); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	var bare []string
	for line := range strings.Lines(read(unit)) {
		if !strings.HasPrefix(line, "CapabilityBoundingSet") && !strings.HasPrefix(line, "SystemCallFilter") {
			bare = append(bare, line)
		}
	}
	planted := filepath.Join(t.TempDir(), agentUnit)
	must(t, os.WriteFile(planted, []byte(strings.Join(bare, "")), 0o600))
	if out, err := analyze(planted, worstExposure); err == nil {
		t.Errorf("a unit without capabilities and system calls bounded passes:\n%s", out)
	}
}

func analyze(unit, worst string) (string, error) {
	out, err := exec.Command("systemd-analyze", "security", "--no-pager", "--offline=yes", "--threshold="+worst, unit).CombinedOutput()
	return string(out), err
}

// TestAutostart: where systemd starts a desktop's programs, as in Plasma and GNOME,
// the entry becomes a unit. systemd itself judges, and is silent about what it leaves out.
func TestAutostart(t *testing.T) {
	generator := platformtest.NeedFile(t, "systemd-xdg-autostart-generator (systemd)", "/usr/lib/systemd/user-generators/systemd-xdg-autostart-generator", "/lib/systemd/user-generators/systemd-xdg-autostart-generator")
	entry := read(filepath.Join(installer, "smime-helper.desktop"))
	const program = "Exec=/usr/libexec/smime-agent/desktop-session\n"
	if !strings.Contains(entry, program) {
		t.Fatalf("the entry has no %s:\n%s", program, entry)
	}
	entry = strings.Replace(entry, program, "Exec=/bin/sh\n", 1) // it looks whether the program is there
	for name, c := range map[string]struct {
		entry string
		want  bool
	}{
		"ours":            {entry, true},
		"a planted phase": {entry + "X-GNOME-Autostart-Phase=Applications\n", false},
	} {
		dir := t.TempDir()
		out := filepath.Join(dir, "out")
		must(t, errors.Join(os.Mkdir(filepath.Join(dir, "autostart"), 0o755), os.Mkdir(out, 0o755)))
		must(t, os.WriteFile(filepath.Join(dir, "autostart", "smime-helper.desktop"), []byte(c.entry), 0o644))
		cmd := exec.CommandContext(t.Context(), generator, out, out, out)
		cmd.Env = []string{"HOME=" + dir, "XDG_CONFIG_HOME=" + dir + "/none", "XDG_CONFIG_DIRS=" + dir, "PATH=" + os.Getenv("PATH")}
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, said)
		}
		units, err := filepath.Glob(filepath.Join(out, "xdg-desktop-autostart.target.wants", "app-smime*helper@autostart.service"))
		must(t, err)
		// Later than 253 it makes a unit with a condition, which GNOME does not meet.
		if starts := len(units) == 1 && !strings.Contains(read(units[0]), "ExecCondition"); starts != c.want {
			t.Errorf("%s: systemd starts it everywhere: %v, want %v (%s)", name, starts, c.want, units)
		}
	}
}

// TestScripts: maintainer scripts run as root on every machine, so they are
// short, plain, and load nothing from anywhere.
func TestScripts(t *testing.T) {
	const most = 25
	loads := regexp.MustCompile(`\b(curl|wget|apt|apt-get|dnf|pip|git|eval)\b|https?:`)
	for _, name := range []string{
		"postinstall.sh", "preremove.sh", "postremove.sh", "desktop-session",
		"central/postinstall.sh", "central/preremove.sh", "central/postremove.sh", "central/smime-central",
	} {
		path := filepath.Join(installer, name)
		text := read(path)
		if lines := strings.Count(text, "\n"); lines == 0 || lines > most {
			t.Errorf("%s has %d lines, at most %d are wanted", name, lines, most)
		}
		if found := loads.FindString(text); found != "" {
			t.Errorf("%s uses %q", name, found)
		}
		if out, err := exec.Command("sh", "-n", path).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestRPM looks into the rpms by rpm itself. They are not installed anywhere here.
func TestRPM(t *testing.T) {
	platformtest.NeedPrograms(t, "rpm", "dpkg-deb")
	judgeRPM(t, "smime-agent", installer)
	judgeRPM(t, "smime-central", centralInstaller)
}

// judgeRPM compares an rpm with the deb of the same name, and with the scripts of a folder.
func judgeRPM(t *testing.T, name, folder string) {
	t.Helper()
	rpm, deb := builtOf(t, name, ".rpm"), builtOf(t, name, ".deb")
	var files []string
	for line := range strings.Lines(output(t, "rpm", "-qp", "--queryformat", `[%{FILEMODES:octal} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILENAMES}\n]`, rpm)) {
		mode, owner, path := "", "", ""
		if _, err := fmt.Sscan(line, &mode, &owner, &path); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if !regexp.MustCompile(`^0?(100644|100755|40755|40700|040755|040700|120000)$`).MatchString(mode) || owner != "root:root" {
			t.Errorf("%s is %s of %s", path, mode, owner)
		}
		files = append(files, strings.Replace(path, "/zsh/site-functions/", "/zsh/vendor-completions/", 1))
	}
	var same []string // folders above ours are in the deb only
	for line := range strings.Lines(output(t, "dpkg-deb", "--contents", deb)) {
		fields := strings.Fields(line)
		path := strings.TrimSuffix(strings.TrimPrefix(fields[5], "."), "/")
		if fields[1] != "root/root" {
			t.Errorf("%s in the deb is of %s", path, fields[1])
		}
		if !strings.HasPrefix(fields[0], "d") || strings.Contains(path, "/"+name) {
			same = append(same, path)
		}
	}
	slices.Sort(files)
	slices.Sort(same)
	if !slices.Equal(files, same) {
		t.Errorf("the rpm has\n%s\nthe deb has\n%s", strings.Join(files, "\n"), strings.Join(same, "\n"))
	}
	scripts := output(t, "rpm", "-qp", "--scripts", rpm)
	for _, script := range []string{"postinstall.sh", "preremove.sh", "postremove.sh"} {
		if !strings.Contains(scripts, strings.TrimSpace(read(filepath.Join(folder, script)))) {
			t.Errorf("the rpm %s has not %s as it stands here", name, script)
		}
	}
	if requires := output(t, "rpm", "-qp", "--requires", rpm); !strings.Contains(requires, "glibc >= 2.") {
		t.Errorf("the rpm requires %s", requires)
	}
}

// TestReproducible builds the packages of this commit once more, elsewhere, under
// another umask and time zone. What was built here can be compared with only if
// nothing here is uncommitted; otherwise a second clone is built.
func TestReproducible(t *testing.T) {
	built(t, ".deb")
	tools, err := filepath.Abs("../../.ci/bin")
	must(t, err)
	again := cloneAndBuild(t, tools, "umask 077; export TZ=Asia/Shanghai LC_ALL=C.UTF-8")
	first := sumsOf(t, os.Getenv(distVariable))
	if len(again) != 5 {
		t.Fatalf("built: %v", again)
	}
	for name := range again {
		if first[name] == "" {
			t.Logf("%s was not built here: the tree is not as committed", name)
			first = cloneAndBuild(t, tools, "umask 022")
			break
		}
	}
	for name, sum := range again {
		if first[name] != sum {
			t.Errorf("%s: %s, then %q", name, first[name], sum)
		}
	}
}

func cloneAndBuild(t *testing.T, tools, surroundings string) map[string]string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a clone")
	output(t, "git", "clone", "--quiet", "--no-hardlinks", "../..", dir)
	output(t, "bash", "-c", surroundings+`; cd "$1" && make --silent --old-file="$2/nfpm" --old-file="$2/go-winres" packages msi TOOLS="$2" MAKEFLAGS=`, "bash", dir, tools)
	return sumsOf(t, filepath.Join(dir, "dist"))
}

func sumsOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	sums := map[string]string{}
	for _, ending := range []string{"deb", "rpm", "msi"} {
		found, err := filepath.Glob(filepath.Join(dir, "*."+ending))
		must(t, err)
		for _, path := range found {
			sums[filepath.Base(path)] = fmt.Sprintf("%x", sha256.Sum256([]byte(read(path))))
		}
	}
	return sums
}
