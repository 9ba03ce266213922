package config

import (
	"net/url"
	"strings"
)

// ProxyMode is how the way to the server is found.
type ProxyMode string

// The modes.
const (
	// ProxySystem takes what the environment says (HTTPS_PROXY, NO_PROXY).
	ProxySystem ProxyMode = "system"
	ProxyNone   ProxyMode = "none"
	ProxyURL    ProxyMode = "url"
)

// Proxy is the setting "proxy".
type Proxy struct {
	Mode ProxyMode
	// URL is set for [ProxyURL] only.
	URL *url.URL
}

func putProxy(s *Settings, e Entry) *fault {
	value, f := single(e)
	if f != nil {
		return f
	}
	switch value {
	case string(ProxySystem), string(ProxyNone):
		s.Proxy = Proxy{Mode: ProxyMode(value)}
		return nil
	}
	const cure = "Write none, system or a URL such as http://proxy.example:3128."
	u, err := url.Parse(value)
	switch {
	case strings.Contains(value, "@"):
		// Neither the value nor the parser's error, which has it too: there is
		// likely to be a password in it.
		return faultf("Write the URL without name and password, and set proxy_user and proxy_password_file.", "The URL has an \"@\" in it, so likely a password.")
	case err != nil:
		return faultf(cure, "The value is not a URL.")
	case u.Scheme != "http" && u.Scheme != "https":
		return faultf(cure, "The value %q is not an http or https URL.", value)
	case u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return faultf(cure, "The URL %q has no host, or has more than host and port.", value)
	}
	s.Proxy = Proxy{Mode: ProxyURL, URL: u}
	return nil
}
