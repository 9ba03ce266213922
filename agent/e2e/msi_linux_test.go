package e2e_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"smime-agent/agent/config"
	"smime-agent/platform/platformtest"
)

const windowsInstaller = "../../installer/windows"

// tables are a package's: by table, by the key's column, by column.
type tables map[string]map[string]map[string]string

// tablesOf reads a package by msiinfo, another hand than that which built it.
func tablesOf(t *testing.T, msi string) tables {
	t.Helper()
	all := tables{}
	for name := range strings.FieldsSeq(output(t, "msiinfo", "tables", msi)) {
		if strings.HasPrefix(name, "_") {
			continue
		}
		lines := strings.Split(strings.ReplaceAll(strings.TrimRight(output(t, "msiinfo", "export", msi, name), "\r\n"), "\r", ""), "\n")
		columns := strings.Split(lines[0], "\t")
		all[name] = map[string]map[string]string{}
		for i, line := range lines[3:] {
			row := map[string]string{}
			for j, cell := range strings.Split(line, "\t") {
				row[columns[j]] = cell
			}
			key := row[columns[0]]
			if _, there := all[name][key]; there {
				key += fmt.Sprint("#", i)
			}
			all[name][key] = row
		}
	}
	return all
}

// only is the one row whose column has this value.
func (t tables) only(table, column, value string) map[string]string {
	var found []map[string]string
	for _, row := range t[table] {
		if row[column] == value {
			found = append(found, row)
		}
	}
	if len(found) != 1 {
		return map[string]string{}
	}
	return found[0]
}

// wantedCells are what a package must say, cell by cell.
var wantedCells = []struct{ table, key, value, column, want string }{
	{"ServiceInstall", "Name", "smime-agent", "StartType", "2"},
	{"ServiceInstall", "Name", "smime-agent", "ServiceType", "16"},
	{"ServiceInstall", "Name", "smime-agent", "StartName", ""}, // LocalSystem
	{"ServiceInstall", "Name", "smime-agent", "ErrorControl", "32769"},
	{"ServiceInstall", "Name", "smime-agent", "Arguments", "service run --managed"},
	{"ServiceControl", "Name", "smime-agent", "Event", "163"}, // started and stopped at installation, stopped and deleted at removal
	{"ServiceControl", "Name", "smime-agent", "Wait", "1"},
	{"MsiServiceConfig", "Name", "smime-agent", "ConfigType", "3"}, // SERVICE_CONFIG_DELAYED_AUTO_START_INFO
	{"MsiServiceConfig", "Name", "smime-agent", "Argument", "1"},
	{"MsiLockPermissionsEx", "LockObject", "JoinTokenValue", "Table", "Registry"},
	{"MsiLockPermissionsEx", "LockObject", "JoinTokenValue", "Condition", ""},
	{"Registry", "Registry", "JoinTokenValue", "Key", `Software\smime-agent-join`},
	{"Registry", "Registry", "JoinTokenValue", "Value", "[JOINTOKEN]"},
	{"Registry", "Name", "smime-helper", "Key", `Software\Microsoft\Windows\CurrentVersion\Run`},
	{"Registry", "Name", "smime-helper", "Value", `"[INSTALLDIR]smime-helper.exe" --supervise`},
	{"Registry", "Name", "EventMessageFile", "Value", `#%%SystemRoot%\System32\EventCreate.exe`},
	{"Registry", "Name", "TypesSupported", "Value", "#7"},
	{"Registry", "Name", "CustomSource", "Value", "#1"},
	{"Property", "Property", "ALLUSERS", "Value", "1"},
	{"Property", "Property", "MsiHiddenProperties", "Value", "JOINTOKEN"},
	{"Property", "Property", "REINSTALLMODE", "Value", "amus"},
	{"Property", "Property", "JOINTOKEN", "Value", ""},
	{"Property", "Property", "SERVERURL", "Value", ""},
	{"Component", "Component", "Server", "Condition", "SERVERURL"},
	{"Component", "Component", "ServerCA", "Condition", "SERVERCA"},
	{"Component", "Component", "ServerPin", "Condition", "SERVERPIN"},
	{"Component", "Component", "JoinToken", "Condition", "JOINTOKEN"},
	{"InstallExecuteSequence", "Action", "AppSearch", "Condition", "NOT (SERVERURL OR SERVERCA OR SERVERPIN)"},
	{"InstallUISequence", "Action", "AppSearch", "Condition", "NOT (SERVERURL OR SERVERCA OR SERVERPIN)"},
	{"InstallExecuteSequence", "Action", "MsiConfigureServices", "Condition", `VersionMsi >= "5.00"`},
	{"Directory", "Directory", "INSTALLDIR", "Directory_Parent", "ProgramFiles64Folder"},
}

// noticesFile is the one file that is no program.
const noticesFile = "NoticesText"

// judgeMSI says what is wrong with a package.
func judgeMSI(t tables) (wrong []string) {
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	for _, w := range wantedCells {
		if got := t.only(w.table, w.key, w.value)[w.column]; got != w.want {
			complain("%s, %s: %s is %q, not %q", w.table, w.value, w.column, got, w.want)
		}
	}
	for _, table := range []string{"CustomAction", "LockPermissions"} {
		if len(t[table]) > 0 { // LockPermissions beside MsiLockPermissionsEx is error 1941
			complain("%s has rows", table)
		}
	}
	for file := range t["MsiFileHash"] { // for files without a version
		if file != noticesFile {
			complain("%s has a hash", file)
		}
	}
	for name, c := range t["Component"] {
		if bits, _ := strconv.Atoi(c["Attributes"]); bits&256 == 0 {
			complain("component %s is not one of 64 bits", name)
		}
	}
	if sddl := t.only("MsiLockPermissionsEx", "LockObject", "JoinTokenValue")["SDDLText"]; !private.MatchString(sddl) {
		complain("the token may be read by others: %s", sddl)
	}
	if strings.Contains(t["ActionText"]["WriteRegistryValues"]["Template"], "[3]") || len(t["ActionText"]["WriteRegistryValues"]) == 0 {
		complain("the log of registry values shows their contents")
	}
	return append(append(wrong, judgeSequence(t)...), judgeUpgrade(t)...)
}

// private is an access list that nothing is inherited into, for SYSTEM and
// administrators only.
var private = regexp.MustCompile(`^O:SYG:SYD:PAI(\(A;[A-Z]*;KA;;;(SY|BA)\)){2}$`)

func judgeSequence(t tables) (wrong []string) {
	at := func(action string) int {
		n, err := strconv.Atoi(t["InstallExecuteSequence"][action]["Sequence"])
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("no action %s", action))
		}
		return n
	}
	order := []string{"FindRelatedProducts", "AppSearch", "LaunchConditions", "CostFinalize", "InstallValidate", "InstallInitialize", "RemoveExistingProducts",
		"ProcessComponents", "StopServices", "DeleteServices", "RemoveRegistryValues", "RemoveFiles", "InstallFiles", "WriteRegistryValues",
		"InstallServices", "MsiConfigureServices", "StartServices", "RegisterProduct", "PublishProduct", "InstallFinalize"}
	for i := 1; i < len(order); i++ {
		if at(order[i-1]) >= at(order[i]) {
			wrong = append(wrong, fmt.Sprintf("%s does not come before %s", order[i-1], order[i]))
		}
	}
	return wrong
}

func judgeUpgrade(t tables) (wrong []string) {
	version, code := t["Property"]["ProductVersion"]["Value"], t["Property"]["UpgradeCode"]["Value"]
	older, newer := t.only("Upgrade", "ActionProperty", "WIX_UPGRADE_DETECTED"), t.only("Upgrade", "ActionProperty", "WIX_DOWNGRADE_DETECTED")
	if older["UpgradeCode"] != code || older["VersionMax"] != version || older["Attributes"] != "513" {
		wrong = append(wrong, fmt.Sprintf("an older version is not replaced: %v", older))
	}
	if newer["UpgradeCode"] != code || newer["VersionMin"] != version || newer["VersionMax"] != "" || newer["Attributes"] != "2" {
		wrong = append(wrong, fmt.Sprintf("a newer version is not noticed: %v", newer))
	}
	if said := t["LaunchCondition"]["NOT WIX_DOWNGRADE_DETECTED"]["Description"]; strings.Count(said, ". ") < 1 {
		wrong = append(wrong, "a downgrade is not refused with what is wrong and what to do")
	}
	secure := strings.Split(t["Property"]["SecureCustomProperties"]["Value"], ";")
	for _, name := range []string{"SERVERURL", "SERVERCA", "SERVERPIN", "JOINTOKEN", "PURGE", "WIX_UPGRADE_DETECTED", "WIX_DOWNGRADE_DETECTED"} {
		if !slices.Contains(secure, name) {
			wrong = append(wrong, name+" does not reach the part of Windows Installer that has the rights")
		}
	}
	for name, f := range t["File"] {
		if name != noticesFile && f["Version"] != version+".0" {
			wrong = append(wrong, fmt.Sprintf("%s has version %q in a package of version %s", name, f["Version"], version))
		}
	}
	return wrong
}

// TestMSI reads the built package's tables, and what is in its cabinet.
func TestMSI(t *testing.T) {
	msi := built(t, ".msi")
	platformtest.NeedPrograms(t, "msiinfo", "msiextract")
	all := tablesOf(t, msi)
	for _, wrong := range judgeMSI(all) {
		t.Error(wrong)
	}
	if summary := output(t, "msiinfo", "suminfo", msi); !strings.Contains(summary, "Template: x64;1033") || !strings.Contains(summary, "Version: 500 ") {
		t.Errorf("the summary says\n%s", summary)
	}
	dir := t.TempDir()
	output(t, "msiextract", "--directory", dir, msi)
	judgeNotices(t, "windows", read(filepath.Join(dir, "smime-agent", "NOTICES.txt")))
	number := all["Property"]["ProductVersion"]["Value"] + ".0"
	for _, name := range []string{"smime-agent.exe", "smime-helper.exe"} {
		found, err := filepath.Glob(filepath.Join(dir, "smime-agent", name))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s in the package: %v, %v", name, found, err)
		}
		program := read(found[0])
		if program != read(filepath.Join(filepath.Dir(msi), "windows", name)) {
			t.Errorf("%s in the package is not the one that was built", name)
		}
		if wide := strings.Join(strings.Split(number, ""), "\x00"); !strings.Contains(program, wide) {
			t.Errorf("%s does not say that it is version %s", name, number)
		}
	}
}

// TestMSITwins: what a property sets, policy can set too, for Group Policy passes
// no properties.
func TestMSITwins(t *testing.T) {
	all := tablesOf(t, built(t, ".msi"))
	known := map[string]bool{}
	for _, s := range config.Table() {
		known[s.Name] = true
	}
	var twins []string
	for _, row := range all["Registry"] {
		if row["Key"] == `Software\smime-agent` {
			twins = append(twins, row["Name"])
		}
	}
	slices.Sort(twins)
	if !slices.Equal(twins, []string{"server", "server_ca", "server_pin"}) {
		t.Errorf("the properties set %v", twins)
	}
	template := read(filepath.Join(windowsInstaller, "smime-agent.admx"))
	for _, name := range append(twins, "join_token_file") { // the last is the token's
		if !known[name] || !strings.Contains(template, `policy name="`+name+`"`) {
			t.Errorf("%s is no setting of policy", name)
		}
	}
}

// TestMSIJudge plants faults: a judge who finds none judges nothing.
func TestMSIJudge(t *testing.T) {
	msi := built(t, ".msi")
	for _, plant := range []struct{ table, row, column, value, want string }{
		{"CustomAction", "Evil", "Target", "cmd.exe", "CustomAction has rows"},
		{"MsiLockPermissionsEx", "TokenIsPrivate", "SDDLText", "O:SYG:SYD:PAI(A;CI;KA;;;SY)(A;CI;KR;;;BU)", "the token may be read by others"},
		{"MsiLockPermissionsEx", "TokenIsPrivate", "SDDLText", "D:(A;CI;KA;;;SY)(A;CI;KA;;;BA)", "the token may be read by others"},
		{"Property", "MsiHiddenProperties", "Value", "SERVERURL", "MsiHiddenProperties"},
		{"ActionText", "WriteRegistryValues", "Template", "Key: [1], Name: [2], Value: [3]", "shows their contents"},
		{"InstallExecuteSequence", "RemoveExistingProducts", "Sequence", "6601", "RemoveExistingProducts does not come before ProcessComponents"},
		{"Component", "Agent", "Attributes", "0", "not one of 64 bits"},
		{"File", "AgentExe", "Version", "", "AgentExe has version"},
		{"MsiFileHash", "AgentExe", "HashPart1", "1", "AgentExe has a hash"},
		{"LaunchCondition", "NOT WIX_DOWNGRADE_DETECTED", "Description", "No.", "downgrade is not refused"},
		{"Property", "SecureCustomProperties", "Value", "SERVERURL", "JOINTOKEN does not reach"},
	} {
		all := tablesOf(t, msi)
		if all[plant.table][plant.row] == nil {
			all[plant.table][plant.row] = map[string]string{}
		}
		all[plant.table][plant.row][plant.column] = plant.value
		if wrong := judgeMSI(all); !slices.ContainsFunc(wrong, func(w string) bool { return strings.Contains(w, plant.want) }) {
			t.Errorf("%s = %q in %s went unnoticed: %v", plant.column, plant.value, plant.table, wrong)
		}
	}
}

// buildMSI builds a package of its own into a folder, with further variables.
func buildMSI(t *testing.T, dir, version string, variables map[string]string) string {
	t.Helper()
	platformtest.NeedPrograms(t, "wixl", "msibuild", "msiinfo", "faketime")
	winres, err := filepath.Abs("../../.ci/bin/go-winres")
	must(t, err)
	platformtest.NeedFile(t, "go-winres (make .ci/bin/go-winres)", winres)
	cmd := exec.CommandContext(t.Context(), windowsInstaller+"/build.sh", version, winres)
	cmd.Env = append(os.Environ(), "DIST="+dir)
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		cmd.Env = append(cmd.Env, name+"="+variables[name])
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if variables["SIGN_WITH"] != "" {
		dir = filepath.Join(dir, "signed")
	}
	return filepath.Join(dir, "smime-agent-"+version+"-x64.msi")
}
