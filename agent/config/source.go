package config

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"smime-agent/platform"
)

// Entry is one setting as a source has it, not yet parsed.
type Entry struct {
	Name string
	// Text is the value; Items, if not nil, a list instead.
	Text  string
	Items []string
	// Where is file and line, or what names the place in this kind of source.
	Where string
	// Private says that no other user can read the source.
	Private bool
	// Unusable says that a [Problem] has been told already.
	Unusable bool
}

// Layer is what one file, key or profile says.
type Layer struct {
	Origin Origin
	// File names the layer, stably from one reading to the next.
	File    string
	Entries []Entry
	// Broken says that there is such a layer, but it could not be read.
	Broken   bool
	Problems []Problem
}

// Source is a place of managed policy.
type Source interface {
	// Layers are read anew at each call, highest first.
	Layers() []Layer
}

// Sources are all the places that settings come from.
type Sources struct {
	// Policy may be nil.
	Policy Source
	// Installed is what the installer was told, lowest of all; it may be nil.
	Installed Source
	// Flags are what the command line sets, by name.
	Flags map[string]string
	// File is the configuration file's path; empty for none.
	File string
	// FileWanted says that somebody named the file, so that it must be there.
	FileWanted bool
}

// SystemSources are those of an installed agent.
func SystemSources(flags map[string]string) Sources {
	p := platform.SystemPaths()
	s := Sources{Policy: SystemPolicy(p.Policy), Flags: flags, File: p.Config}
	if p.Installed != "" {
		s.Installed = systemPlace{p.Installed, FromFile}
	}
	return s
}

// Fingerprint tells one state of all sources from another. It is for comparing
// in memory, not for logs: secrets went into it.
type Fingerprint [sha256.Size]byte

// Fingerprint reads all sources. It changes with contents, but also with
// whatever makes a file unusable, such as its owner.
func (s Sources) Fingerprint() Fingerprint {
	h := sha256.New()
	for _, l := range s.layers() {
		// Layers are plain data, which JSON always takes.
		_ = json.NewEncoder(h).Encode(l)
	}
	return Fingerprint(h.Sum(nil))
}

// Paths are the files, folders and keys of the registry that these sources read,
// there or not.
func (s Sources) Paths() []string {
	var paths []string
	if filepath.IsAbs(s.File) {
		paths = append(paths, s.File)
	}
	for _, source := range []Source{s.Policy, s.Installed} {
		switch p := source.(type) {
		case systemPlace:
			paths = append(paths, p.place)
		case PolicyFolder:
			if filepath.IsAbs(string(p)) {
				paths = append(paths, string(p))
			}
		}
	}
	return paths
}

// layers are highest first.
func (s Sources) layers() []Layer {
	var all []Layer
	if s.Policy != nil {
		all = s.Policy.Layers()
	}
	if len(s.Flags) > 0 {
		all = append(all, flagLayer(s.Flags))
	}
	if s.File != "" {
		if l, there := fileLayer(s.File, FromFile, s.FileWanted); there {
			all = append(all, l)
		}
	}
	if s.Installed != nil {
		all = append(all, s.Installed.Layers()...)
	}
	return all
}

func flagLayer(flags map[string]string) Layer {
	l := Layer{Origin: FromFlag, File: "command line"}
	for name, value := range flags {
		// Every user can read the command lines of others.
		l.Entries = append(l.Entries, Entry{Name: name, Text: value, Where: l.File})
	}
	slices.SortFunc(l.Entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return l
}

// PolicyFolder is managed policy in a folder of YAML files. They are read in
// the order of their names, and a later one wins over an earlier.
type PolicyFolder string

// Layers reads the files.
func (f PolicyFolder) Layers() []Layer {
	entries, err := os.ReadDir(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return []Layer{brokenLayer(string(f), FromPolicy, err)}
	}
	var layers []Layer
	for _, e := range slices.Backward(entries) {
		path := filepath.Join(string(f), e.Name())
		switch filepath.Ext(e.Name()) {
		case ".yaml":
			if l, there := fileLayer(path, FromPolicy, true); there {
				layers = append(layers, l)
			}
		case ".yml":
			layers = append(layers, Layer{Origin: FromPolicy, File: path, Problems: []Problem{{Source: FromPolicy, Where: path,
				Wrong: "The file is not read, because its name ends in .yml.", Cure: "Let its name end in .yaml."}}})
		}
	}
	return layers
}

func fileLayer(path string, from Origin, wanted bool) (Layer, bool) {
	data, private, err := platform.ReadTrusted(path, maxFile)
	if errors.Is(err, platform.ErrNotFound) && !wanted {
		return Layer{}, false
	}
	if err != nil {
		return brokenLayer(path, from, err), true
	}
	l := Layer{Origin: from, File: path}
	l.Entries, l.Problems, l.Broken = readYAML(data, path, from, private)
	return l, true
}

func brokenLayer(path string, from Origin, err error) Layer {
	p := Problem{Source: from, Where: path, Wrong: fmt.Sprintf("It cannot be read: %v.", err),
		Cure: fmt.Sprintf("Make it a file of at most %d KB that this account can read.", maxFile>>10)}
	switch {
	case errors.Is(err, platform.ErrNotFound):
		p.Wrong, p.Cure = "There is no such file.", "Write the file, or name another."
	case errors.Is(err, platform.ErrDenied) && !errors.Is(err, fs.ErrPermission):
		p.Insecure = true
		p.Wrong = fmt.Sprintf("It is not used, because another user may have written it: %v.", err)
		p.Cure = "Let the file and the folders above it belong to root, and let nobody else write them (chown root, chmod go-w)."
	case errors.Is(err, platform.ErrUnsupported):
		p.Cure = "Settings files are not supported on this system."
	}
	return Layer{Origin: from, File: path, Broken: true, Problems: []Problem{p}}
}

// maxSecret bounds a token or password, in bytes.
const maxSecret = 4096

// ReadSecretFile reads a token or password from a file that no other user can
// read or write; the line's end is not part of it.
func ReadSecretFile(path string) (Secret, error) {
	data, private, err := platform.ReadTrusted(path, maxSecret)
	if err != nil {
		return "", err
	}
	if !private {
		return "", fmt.Errorf("read %s: %w: other users can read it", path, platform.ErrDenied)
	}
	secret := strings.TrimRight(string(data), "\r\n")
	if secret == "" || strings.ContainsAny(secret, "\x00\r\n") {
		return "", fmt.Errorf("read %s: it does not hold one line", path)
	}
	return Secret(secret), nil
}
