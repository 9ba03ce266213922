package config

import (
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// fault is why a value cannot be used: one sentence, and one of cure.
type fault struct{ wrong, cure string }

func faultf(cure, wrong string, args ...any) *fault {
	return &fault{wrong: fmt.Sprintf(wrong, args...), cure: cure}
}

// putter reads an entry into its field. If it finds a fault it leaves the field
// alone.
type putter func(*Settings, Entry) *fault

// single refuses a list where one value is wanted.
func single(e Entry) (string, *fault) {
	if e.Items != nil {
		return "", faultf("Write a single value.", "It is a list.")
	}
	return e.Text, nil
}

func text(field func(*Settings) *string, check func(string) *fault) putter {
	return func(s *Settings, e Entry) *fault {
		value, f := single(e)
		if f == nil {
			f = check(value)
		}
		if f == nil {
			*field(s) = value
		}
		return f
	}
}

func number(field func(*Settings) *int, least, most int) putter {
	return func(s *Settings, e Entry) *fault {
		value, f := single(e)
		if f != nil {
			return f
		}
		n, err := strconv.Atoi(value)
		if err != nil || n < least || n > most {
			return faultf(fmt.Sprintf("Write a whole number from %d to %d.", least, most), "The value is %q.", value)
		}
		*field(s) = n
		return nil
	}
}

func boolean(field func(*Settings) *bool) putter {
	return func(s *Settings, e Entry) *fault {
		value, f := single(e)
		if f != nil {
			return f
		}
		switch strings.ToLower(value) {
		case "true":
			*field(s) = true
		case "false":
			*field(s) = false
		default:
			return faultf("Write true or false.", "The value is %q.", value)
		}
		return nil
	}
}

func interval(field func(*Settings) *time.Duration, least, most time.Duration) putter {
	return func(s *Settings, e Entry) *fault {
		value, f := single(e)
		if f != nil {
			return f
		}
		d, ok := parseDuration(value)
		switch {
		case !ok:
			return faultf("Write a number with its unit, such as 30s, 15m, 12h or 7d.", "The value is %q, which is no duration.", value)
		case d < least || d > most:
			return faultf(fmt.Sprintf("Write a duration from %s to %s.", short(least), short(most)), "The value is %q.", value)
		}
		*field(s) = d
		return nil
	}
}

// parseDuration knows whole days beside Go's units.
func parseDuration(s string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		return time.Duration(n) * day, err == nil && n >= 0 && n <= 36500
	}
	d, err := time.ParseDuration(s)
	return d, err == nil
}

// short writes a duration as people do: 24h0m0s is 1d.
func short(d time.Duration) string {
	for _, unit := range []struct {
		name string
		d    time.Duration
	}{{"d", day}, {"h", time.Hour}, {"m", time.Minute}} {
		if d >= unit.d && d%unit.d == 0 {
			return strconv.Itoa(int(d/unit.d)) + unit.name
		}
	}
	return d.String()
}

func hostPort(value string) *fault {
	const cure = "Write a host name and a port, such as smime.example.com:8443."
	if strings.Contains(value, "://") || strings.Contains(value, "/") {
		return faultf(cure, "The value %q is a URL.", value)
	}
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		return faultf(cure, "The value %q is not host:port.", value)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return faultf(cure, "The port %q is not a number from 1 to 65535.", port)
	}
	if host == "" || len(host) > 253 || strings.ContainsFunc(host, notInHost) {
		return faultf(cure, "The host %q is not a name or an IP address.", host)
	}
	return nil
}

// notInHost allows IPv6 addresses with zones too; the resolver knows the rest.
func notInHost(r rune) bool {
	return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(".-_:%", r)
}

func absolute(value string) *fault {
	if !filepath.IsAbs(value) || strings.ContainsFunc(value, unicode.IsControl) {
		return faultf("Write the whole path, from the root.", "The path %q is not absolute.", value)
	}
	return nil
}

// localAddress lets a pipe's name pass; whether it can be taken only the system knows.
func localAddress(value string) *fault {
	if strings.HasPrefix(value, `\\.\pipe\`) {
		return nil
	}
	return absolute(value)
}

// maxLine bounds what people are shown, in letters.
const maxLine = 200

func oneLine(value string) *fault {
	if !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) || utf8.RuneCountInString(value) > maxLine {
		return faultf("Write it shorter and in one line.", "The value is longer than %d letters or has control characters in it.", maxLine)
	}
	return nil
}

func putLevel(s *Settings, e Entry) *fault {
	value, f := single(e)
	if f != nil {
		return f
	}
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	level, ok := levels[strings.ToLower(value)]
	if !ok {
		return faultf("Write debug, info, warn or error.", "The value is %q.", value)
	}
	s.LogLevel = level
	return nil
}

// putToken never repeats the value: not even a wrong secret is for eyes.
func putToken(s *Settings, e Entry) *fault {
	value, f := single(e)
	switch {
	case f != nil:
		return f
	case !e.Private:
		return faultf("Let only the service read it (chmod 600), or put the token into a file of its own and set join_token_file; then replace the token.",
			"It stands where other users of the machine can read it.")
	case len(value) > maxSecret || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }):
		return faultf("Copy the token again, without spaces or line ends.", "It is not one word of plain letters, or longer than %d of them.", maxSecret)
	}
	s.JoinToken = Secret(value)
	return nil
}
