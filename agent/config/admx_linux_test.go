package config_test

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"smime-agent/agent/config"
)

const (
	// policyKey is where the reader looks (platform, systemPaths for Windows).
	policyKey = `Software\Policies\smime-agent`
	// admxLimit is what Intune takes, in bytes.
	admxLimit = 1 << 20
)

// The template's elements, in the order that the schema wants.
type (
	template struct {
		XMLName   xml.Name   `xml:"http://schemas.microsoft.com/GroupPolicy/2006/07/PolicyDefinitions policyDefinitions"`
		Revision  string     `xml:"revision,attr"`
		Schema    string     `xml:"schemaVersion,attr"`
		Target    target     `xml:"policyNamespaces>target"`
		Resources resources  `xml:"resources"`
		Supported []named    `xml:"supportedOn>definitions>definition"`
		Category  named      `xml:"categories>category"`
		Policies  []policyOf `xml:"policies>policy"`
	}
	target struct {
		Prefix    string `xml:"prefix,attr"`
		Namespace string `xml:"namespace,attr"`
	}
	resources struct {
		Revision string `xml:"minRequiredRevision,attr"`
	}
	named struct {
		Name    string `xml:"name,attr"`
		Display string `xml:"displayName,attr"`
	}
	ref struct {
		Ref string `xml:"ref,attr"`
	}
	policyOf struct {
		Name         string    `xml:"name,attr"`
		Class        string    `xml:"class,attr"`
		Display      string    `xml:"displayName,attr"`
		Explain      string    `xml:"explainText,attr"`
		Presentation string    `xml:"presentation,attr,omitempty"`
		Key          string    `xml:"key,attr"`
		ValueName    string    `xml:"valueName,attr,omitempty"`
		Parent       ref       `xml:"parentCategory"`
		Supported    ref       `xml:"supportedOn"`
		Enabled      *decimal  `xml:"enabledValue>decimal"`
		Disabled     *decimal  `xml:"disabledValue>decimal"`
		Elements     *elements `xml:"elements"`
	}
	decimal struct {
		Value int `xml:"value,attr"`
	}
	elements struct {
		Text    *element `xml:"text"`
		Decimal *element `xml:"decimal"`
		Enum    *element `xml:"enum"`
		List    *element `xml:"list"`
	}
	element struct {
		ID        string `xml:"id,attr"`
		ValueName string `xml:"valueName,attr,omitempty"`
		Key       string `xml:"key,attr,omitempty"`
		// Prefix makes a list number its values; with none they would be named as
		// their contents.
		Prefix   *string `xml:"valuePrefix,attr"`
		Required bool    `xml:"required,attr,omitempty"`
		Items    []item  `xml:"item"`
	}
	item struct {
		Display string `xml:"displayName,attr"`
		Value   string `xml:"value>string"`
	}
)

func admx() []byte {
	t := template{
		Revision: "1.0", Schema: "1.0",
		Target:    target{"smimeagent", "SmimeAgent.Policies.SmimeAgent"},
		Resources: resources{"1.0"},
		Supported: []named{{"SUPPORTED_0_1", "$(string.SUPPORTED_0_1)"}},
		Category:  named{"SmimeAgent", "$(string.CATEGORY)"},
	}
	for _, s := range managed() {
		t.Policies = append(t.Policies, policyFor(s))
	}
	return marked(t)
}

func policyFor(s config.Setting) policyOf {
	p := policyOf{
		Name: s.Name, Class: "Machine", Display: "$(string." + s.Name + ")", Explain: "$(string." + s.Name + "_help)",
		Key: policyKey, Parent: ref{"SmimeAgent"}, Supported: ref{"SUPPORTED_" + strings.ReplaceAll(s.Since, ".", "_")},
	}
	if s.Type == config.Bool { // enabled, disabled, or not configured
		p.ValueName, p.Enabled, p.Disabled = s.Name, &decimal{1}, &decimal{0}
		return p
	}
	p.Presentation, p.Elements = "$(presentation."+s.Name+")", &elements{}
	e := &element{ID: s.Name, ValueName: s.Name, Required: true}
	switch {
	case s.Type == config.List:
		p.Elements.List = &element{ID: s.Name, Key: policyKey + `\` + s.Name, Prefix: new("")}
	case s.Type == config.Int:
		p.Elements.Decimal = e
	case len(s.Options) > 0:
		for _, o := range s.Options {
			e.Items = append(e.Items, item{"$(string." + s.Name + "_" + o + ")", o})
		}
		p.Elements.Enum = e
	default:
		p.Elements.Text = e
	}
	return p
}

type (
	language struct {
		XMLName       xml.Name       `xml:"http://schemas.microsoft.com/GroupPolicy/2006/07/PolicyDefinitions policyDefinitionResources"`
		Revision      string         `xml:"revision,attr"`
		Schema        string         `xml:"schemaVersion,attr"`
		Display       string         `xml:"displayName"`
		Description   string         `xml:"description"`
		Strings       []text         `xml:"resources>stringTable>string"`
		Presentations []presentation `xml:"resources>presentationTable>presentation"`
	}
	text struct {
		ID   string `xml:"id,attr"`
		Text string `xml:",chardata"`
	}
	presentation struct {
		ID      string   `xml:"id,attr"`
		TextBox *textBox `xml:"textBox"`
		Decimal *control `xml:"decimalTextBox"`
		Enum    *control `xml:"dropdownList"`
		List    *control `xml:"listBox"`
	}
	textBox struct {
		Ref     string `xml:"refId,attr"`
		Label   string `xml:"label"`
		Default string `xml:"defaultValue,omitempty"`
	}
	control struct {
		Ref     string `xml:"refId,attr"`
		Default string `xml:"defaultValue,attr,omitempty"`
		Item    *int   `xml:"defaultItem,attr"`
		NoSort  bool   `xml:"noSort,attr,omitempty"`
		Label   string `xml:",chardata"`
	}
)

func adml(w words) []byte {
	l := language{Revision: "1.0", Schema: "1.0", Display: w.product, Description: w.about}
	l.Strings = []text{{"CATEGORY", w.product}, {"SUPPORTED_0_1", w.since01}}
	for _, s := range managed() {
		l.Strings = append(l.Strings, text{s.Name, w.title(s)}, text{s.Name + "_help", w.explain(s)})
		for _, o := range s.Options {
			l.Strings = append(l.Strings, text{s.Name + "_" + o, o})
		}
		if s.Type != config.Bool {
			l.Presentations = append(l.Presentations, presentationFor(w, s))
		}
	}
	return marked(l)
}

func presentationFor(w words, s config.Setting) presentation {
	p := presentation{ID: s.Name}
	switch {
	case s.Type == config.List:
		p.List = &control{Ref: s.Name, Label: w.ask}
	case s.Type == config.Int:
		p.Decimal = &control{Ref: s.Name, Default: s.Default, Label: w.title(s)}
	case len(s.Options) > 0:
		for i, o := range s.Options {
			if o == s.Default {
				p.Enum = &control{Ref: s.Name, Item: &i, NoSort: true, Label: w.title(s)}
			}
		}
	default:
		p.TextBox = &textBox{Ref: s.Name, Label: w.title(s), Default: standard(s)}
	}
	return p
}

func marked(v any) []byte {
	body, err := xml.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Appendf(nil, "%v", err) // which no test takes for the file
	}
	// A line end within text is written as a reference, which editors would show.
	body = bytes.ReplaceAll(body, []byte("&#xA;"), []byte("\n"))
	head := xml.Header + "<!-- Generated from the table in agent/config; change it there, then: make generate -->\n"
	return append([]byte(head), append(body, '\n')...)
}

// TestTemplates checks what Group Policy and Intune want of the files as they
// stand, by a reading of its own.
func TestTemplates(t *testing.T) {
	files := artefacts()
	for _, complaint := range judgeTemplates(string(files["windows/smime-agent.admx"]),
		string(files["windows/en-US/smime-agent.adml"]), string(files["windows/zh-CN/smime-agent.adml"])) {
		t.Error(complaint)
	}
}

// TestTemplatesCatches plants one fault of each kind.
func TestTemplatesCatches(t *testing.T) {
	files := artefacts()
	admx, adml := string(files["windows/smime-agent.admx"]), string(files["windows/en-US/smime-agent.adml"])
	for _, c := range []struct{ in, old, new, want string }{
		{"admx", "</policies>", "", "not well-formed"},
		{"admx", `key="Software\Policies\smime-agent"`, `key="Software\smime-agent"`, "not below"},
		{"admx", `name="proxy"`, `name="server"`, "twice"},
		{"admx", "$(string.proxy)", "$(string.nothing)", "resolves"},
		{"adml", `refId="proxy"`, `refId="nothing"`, "no control"},
		{"adml", `<presentation id="proxy">`, `<presentation id="nothing">`, "resolves"},
		{"adml", "<textBox", "<comboBox/><textBox", "comboBox"},
	} {
		a, l := admx, adml
		if c.in == "admx" {
			a = strings.Replace(a, c.old, c.new, 1)
		} else {
			l = strings.Replace(l, c.old, c.new, 1)
		}
		if found := strings.Join(judgeTemplates(a, l), "; "); !strings.Contains(found, c.want) {
			t.Errorf("%s instead of %s went unnoticed: %q", c.new, c.old, found)
		}
	}
}

func judgeTemplates(admx string, languages ...string) (complaints []string) {
	complain := func(format string, args ...any) { complaints = append(complaints, fmt.Sprintf(format, args...)) }
	for _, file := range append(languages, admx) {
		if err := xml.Unmarshal([]byte(file), new(struct{})); err != nil {
			complain("not well-formed: %v", err)
		}
		if len(file) > admxLimit || strings.Contains(file, "comboBox") {
			complain("Intune refuses more than 1 MB, and comboBox")
		}
	}
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile(`<(?:policy|category|definition) name="([^"]*)"`).FindAllStringSubmatch(admx, -1) {
		if seen[m[1]] {
			complain("%s is there twice", m[1])
		}
		seen[m[1]] = true
	}
	for _, m := range regexp.MustCompile(` key="([^"]*)"`).FindAllStringSubmatch(admx, -1) {
		if !strings.HasPrefix(m[1], `Software\Policies\`) {
			complain("the key %s is not below Software\\Policies", m[1])
		}
	}
	for i, l := range languages {
		for _, m := range regexp.MustCompile(`\$\((string|presentation)\.([^)]*)\)`).FindAllStringSubmatch(admx, -1) {
			if !strings.Contains(l, "<"+m[1]+` id="`+m[2]+`">`) {
				complain("%s resolves not in language %d", m[0], i)
			}
		}
		for _, m := range regexp.MustCompile(`<(?:text|decimal|enum|list) id="([^"]*)"`).FindAllStringSubmatch(admx, -1) {
			if !strings.Contains(l, ` refId="`+m[1]+`"`) {
				complain("%s has no control in language %d", m[1], i)
			}
		}
	}
	return complaints
}
