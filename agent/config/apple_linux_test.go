package config_test

import (
	"crypto/sha1" //nolint:gosec // RFC 9562 wants it for version 5
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"smime-agent/agent/config"
)

// domain is the preference domain of the settings (platform, systemPaths for
// macOS), and the prefix of the labels that launchd knows.
const domain = "org.smime-agent"

// A property list, as far as we write one; entries keep their order.
type (
	entry struct {
		key   string
		value any
	}
	dict  []entry
	array []any
	date  string
	data  []byte
)

func propertyList(comment string, root dict) []byte {
	var b strings.Builder
	b.WriteString(xml.Header + `<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">` + "\n")
	b.WriteString("<!-- " + comment + " -->\n<plist version=\"1.0\">\n")
	writePlist(&b, root, "")
	b.WriteString("</plist>\n")
	return []byte(b.String())
}

func writePlist(b *strings.Builder, value any, indent string) {
	one := func(name, content string) {
		b.WriteString(indent + "<" + name + ">")
		_ = xml.EscapeText(b, []byte(content)) // a strings.Builder takes everything
		b.WriteString("</" + name + ">\n")
	}
	switch v := value.(type) {
	case dict:
		b.WriteString(indent + "<dict>\n")
		for _, e := range v {
			b.WriteString(indent + "\t<key>" + e.key + "</key>\n")
			writePlist(b, e.value, indent+"\t")
		}
		b.WriteString(indent + "</dict>\n")
	case array:
		b.WriteString(indent + "<array>\n")
		for _, x := range v {
			writePlist(b, x, indent+"\t")
		}
		b.WriteString(indent + "</array>\n")
	case bool:
		b.WriteString(indent + "<" + strconv.FormatBool(v) + "/>\n")
	case int:
		one("integer", strconv.Itoa(v))
	case date:
		one("date", string(v))
	case data:
		one("data", base64.StdEncoding.EncodeToString(v))
	default:
		one("string", fmt.Sprint(v))
	}
}

const generated = "Generated from the table in agent/config; change it there, then: make generate"

// manifest describes the settings to editors of profiles, in the format of the
// ProfileManifests project.
func manifest() []byte {
	keys := array{
		payloadKey("PayloadDescription", "string", "Description", english.about),
		payloadKey("PayloadDisplayName", "string", "Name", english.product),
		payloadKey("PayloadIdentifier", "string", "Identifier", domain),
		payloadKey("PayloadType", "string", "Type", domain),
		payloadKey("PayloadUUID", "string", "UUID", ""),
		payloadKey("PayloadVersion", "integer", "Version", 1),
	}
	for _, s := range managed() {
		keys = append(keys, describe(s))
	}
	return propertyList(generated, dict{
		{"pfm_description", english.about}, {"pfm_domain", domain},
		{"pfm_format_version", 1}, {"pfm_last_modified", date("2026-11-23T00:00:00Z")}, {"pfm_platforms", array{"macOS"}},
		{"pfm_subkeys", keys}, {"pfm_targets", array{"system"}}, {"pfm_title", english.product}, {"pfm_unique", true}, {"pfm_version", 1},
	})
}

func payloadKey(name, kind, title string, value any) dict {
	d := dict{{"pfm_name", name}, {"pfm_type", kind}, {"pfm_title", title}, {"pfm_require", "always"}}
	if value != "" {
		d = append(d, entry{"pfm_default", value})
	}
	return d
}

func describe(s config.Setting) dict {
	d := dict{{"pfm_name", s.Name}, {"pfm_title", s.Title}, {"pfm_description", english.explain(s)}}
	switch s.Type {
	case config.Bool:
		return append(d, entry{"pfm_type", "boolean"}, entry{"pfm_default", s.Default == "true"})
	case config.Int:
		return append(d, entry{"pfm_type", "integer"}, entry{"pfm_default", whole(s.Default)})
	case config.List:
		return append(d, entry{"pfm_type", "array"}, entry{"pfm_subkeys", array{dict{{"pfm_type", "string"}}}})
	default: // the others are written as text
	}
	d = append(d, entry{"pfm_type", "string"})
	if len(s.Options) > 0 {
		var list array
		for _, o := range s.Options {
			list = append(list, o)
		}
		d = append(d, entry{"pfm_range_list", list})
	}
	if v := standard(s); v != "" {
		d = append(d, entry{"pfm_default", v})
	} else if v := onMac(s.Name); v != "" {
		d = append(d, entry{"pfm_value_placeholder", v})
	}
	return d
}

// onMac is the example with the place of the state folder there.
func onMac(name string) string { return strings.Replace(examples[name], "/var/lib/", "/var/db/", 1) }

func whole(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1 // which the check of the manifest does not take
	}
	return n
}

// jamfSchema is a JSON schema as Jamf Pro takes it for custom settings: each is
// either not configured or has a value.
func jamfSchema() []byte {
	properties := map[string]any{}
	for i, s := range managed() {
		value := map[string]any{"title": "Configured", "type": map[config.Type]string{
			config.Bool: "boolean", config.Int: "integer", config.List: "array",
		}[s.Type]}
		switch {
		case s.Type == config.List:
			value["items"] = map[string]any{"type": "string", "title": s.Title}
		case s.Type != config.Bool && s.Type != config.Int:
			value["type"] = "string"
		}
		if len(s.Options) > 0 {
			value["enum"] = s.Options
		}
		properties[s.Name] = map[string]any{
			"title": s.Title, "description": english.explain(s), "property_order": i + 1,
			"anyOf": []any{map[string]any{"type": "null", "title": "Not configured"}, value},
		}
	}
	schema, err := json.MarshalIndent(map[string]any{
		"title": english.product + " (" + domain + ")", "description": english.about, "$comment": generated, "properties": properties,
	}, "", "  ")
	if err != nil {
		return fmt.Appendf(nil, "%v", err) // which no test takes for the file
	}
	return append(schema, '\n')
}

// profile is a sample with the three payloads that a deployment needs. What is
// to be replaced says so.
func profile() []byte {
	settings := payload(domain, "settings", "Settings of the S/MIME agent")
	for _, name := range []string{"server", "server_ca", "join_token_file", "organization"} {
		settings = append(settings, entry{name, onMac(name)})
	}
	root := append(payload("com.apple.security.root", "root", "REPLACE the certificate: root of your S/MIME CA"),
		entry{"PayloadCertificateFileName", "root.cer"}, entry{"PayloadContent", data("REPLACE by your root certificate, in DER")})
	background := append(payload("com.apple.servicemanagement", "background", "Background items of the S/MIME agent"),
		entry{"Rules", array{dict{
			{"RuleType", "LabelPrefix"}, {"RuleValue", domain}, {"TeamIdentifier", "REPLACE by the team that signed the package"},
			{"Comment", "People cannot switch the service and the helper off."},
		}}})
	whole := append(payload("Configuration", "profile", "S/MIME agent"), entry{"PayloadOrganization", "Example GmbH"},
		entry{"PayloadScope", "System"}, entry{"PayloadRemovalDisallowed", true}, entry{"PayloadContent", array{settings, root, background}})
	return propertyList(generated+". A sample: replace what says REPLACE, and the values of the settings", whole)
}

func payload(kind, name, title string) dict {
	return dict{
		{"PayloadType", kind}, {"PayloadVersion", 1}, {"PayloadIdentifier", domain + "." + name},
		{"PayloadUUID", uuidOf(name)}, {"PayloadDisplayName", title},
	}
}

// uuidOf makes the same UUID each time (RFC 9562, version 5).
func uuidOf(name string) string {
	sum := sha1.Sum([]byte(domain + "." + name)) //nolint:gosec // see the import
	u := sum[:16]
	u[6], u[8] = u[6]&0x0f|0x50, u[8]&0x3f|0x80
	return strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:]))
}

// TestProfile reads the property lists by a reader that is not ours.
func TestProfile(t *testing.T) {
	for name, file := range artefacts() {
		if !strings.HasPrefix(name, "macos/") || strings.HasSuffix(name, ".json") {
			continue
		}
		var any struct {
			Dict struct {
				Keys []string `xml:"key"`
			} `xml:"dict"`
		}
		if err := xml.Unmarshal(file, &any); err != nil || len(any.Dict.Keys) == 0 {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(string(file), "join_token</") || strings.Contains(string(file), "<integer>-1<") {
			t.Errorf("%s holds a secret, or a default that is no number", name)
		}
	}
	var schema struct {
		Properties map[string]struct {
			AnyOf []struct {
				Type string `json:"type"`
			} `json:"anyOf"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(jamfSchema(), &schema); err != nil {
		t.Fatal(err)
	}
	for _, s := range managed() {
		if p := schema.Properties[s.Name]; len(p.AnyOf) != 2 || p.AnyOf[0].Type != "null" || p.AnyOf[1].Type == "" {
			t.Errorf("Jamf's schema has %s as %+v", s.Name, p)
		}
		if !strings.Contains(string(manifest()), "<string>"+s.Name+"</string>") {
			t.Errorf("the manifest lacks %s", s.Name)
		}
	}
}
