package exchange

import (
	_ "embed"
	"strings"
	"text/template"
)

// The scripts, for PowerShell with the module of Exchange Online, or the
// management shell of Exchange Server.
var (
	//go:embed smime-config.ps1
	configText string
	//go:embed mail-flow.ps1
	mailFlowText string
)

var configScript = template.Must(template.New("config").Funcs(template.FuncMap{"switch": powershell, "quote": quote}).Parse(configText))

func powershell(b bool) string {
	if b {
		return "$true"
	}
	return "$false"
}

// quote is a literal of PowerShell, in which only the quotation mark is doubled;
// the typographic ones count as quotation marks too.
func quote(s string) string {
	for _, mark := range []string{"'", "\u2018", "\u2019", "\u201a", "\u201b"} {
		s = strings.ReplaceAll(s, mark, mark+mark)
	}
	return "'" + strings.NewReplacer("\r", " ", "\n", " ").Replace(s) + "'"
}

// Wishes are what policy wants of Outlook on the web and of the new Outlook.
type Wishes struct {
	// Organization is named in the scripts.
	Organization string
	// StoreFile is the name of the SST beside the script.
	StoreFile string
	// AlwaysSign and AlwaysEncrypt hold for everybody in the organization.
	AlwaysSign, AlwaysEncrypt bool
}

// ConfigScript is the script that sets the organization's S/MIME configuration.
func ConfigScript(w Wishes) (string, error) {
	var b strings.Builder
	b.WriteString("\ufeff") // else Windows PowerShell 5.1 takes UTF-8 for the system's code page
	err := configScript.Execute(&b, w)
	return b.String(), err
}

// MailFlowScript is the script that keeps rules of mail flow from breaking signatures.
func MailFlowScript() string { return mailFlowText }
