package oldmail

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// scan is one look through folders.
type scan struct {
	ctx    context.Context //nolint:containedctx // it lives as long as the one call that it belongs to
	census *Census
}

// form is how a file holds mail.
type form int

const (
	formNone form = iota
	formMbox
	formMessage
	// formEmlx is Apple Mail's: a line with the length, the message, a plist.
	formEmlx
	// formClosed is one that only its own program reads.
	formClosed
)

// folder looks through a folder and all below it. The order is that of names, so
// that results are the same from run to run.
func (s *scan) folder(path string) error {
	return filepath.WalkDir(path, func(at string, d fs.DirEntry, err error) error {
		switch {
		case s.ctx.Err() != nil:
			return s.ctx.Err()
		case err != nil && at == path:
			return err
		case err != nil: // a folder that may not be read
			s.census.Failed++
			return nil
		case d.IsDir() && skipped(d.Name()) && at != path:
			return fs.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		s.file(at, s.formOf(at))
		return nil
	})
}

// skipped are folders with copies of mail that is elsewhere too (.mozmsgs are
// Thunderbird's for the desktop search), or with messages half delivered.
func skipped(name string) bool {
	return strings.HasSuffix(name, ".mozmsgs") || name == "tmp"
}

// formOf judges a file by its place, its name and its first bytes.
func (s *scan) formOf(path string) form {
	if parent := filepath.Base(filepath.Dir(path)); parent == "cur" || parent == "new" {
		return formMessage // Maildir, also Thunderbird's kind of it
	}
	switch strings.ToLower(filepath.Ext(path)) {
	case ".eml":
		return formMessage
	case ".emlx":
		return formEmlx
	case ".pst", ".ost", ".olm":
		return formClosed
	case ".msf":
		return formNone
	}
	if beginsWith(path, "From ") || exists(path+".msf") {
		return formMbox
	}
	return formNone
}

// named reads a file that the caller named: whatever it is, it is meant as mail.
func (s *scan) named(path string) {
	f := s.formOf(path)
	if f == formNone {
		f = formMessage
	}
	s.file(path, f)
}

func beginsWith(path, want string) bool {
	f, err := os.Open(path) //nolint:gosec // the user names the folder, and reads with his own rights
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, len(want))
	n, _ := io.ReadFull(f, head)
	return string(head[:n]) == want
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// file reads one file and counts what is in it. A file that cannot be read to its
// end counts as failed; what came before its end counts.
func (s *scan) file(path string, f form) {
	switch f {
	case formNone:
		return
	case formClosed:
		s.census.Closed++
		return
	case formMbox, formMessage, formEmlx:
	}
	file, err := os.Open(path) //nolint:gosec // the user names the folder, and reads with his own rights
	if errors.Is(err, fs.ErrNotExist) {
		return // a mail program has moved it since it was listed
	}
	if err != nil {
		s.census.Failed++
		return
	}
	defer func() { _ = file.Close() }()
	s.census.Files++
	if err := s.read(file, f, shown(path, f)); err != nil {
		s.census.Failed++
	}
}

// shown is what stands for a file in the results: messages that are files of
// their own are counted by their folder.
func shown(path string, f form) string {
	if dir, name := filepath.Dir(path), filepath.Base(filepath.Dir(path)); f == formMessage && (name == "cur" || name == "new") {
		return filepath.Dir(dir)
	}
	return path
}

// lineLimit is how much of a line is looked at in one piece.
const lineLimit = 64 << 10

// read hands a file's lines to its messages.
func (s *scan) read(r io.Reader, f form, folder string) error {
	m := &message{}
	started := f != formMbox
	lines := bufio.NewReaderSize(r, lineLimit)
	begins, blank := true, true
	for n := 0; ; n++ {
		if n%1024 == 0 && s.ctx.Err() != nil {
			return s.ctx.Err()
		}
		line, err := lines.ReadSlice('\n')
		whole := err == nil
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
			return err
		}
		switch {
		case f == formEmlx && n == 0:
		case f == formMbox && begins && blank && separates(line):
			if started {
				s.census.count(folder, m.end())
			}
			m, started = &message{}, true
		case started && len(line) > 0:
			m.line(line, begins)
		}
		blank = begins && len(bytes.TrimRight(line, "\r\n")) == 0
		begins = whole
		if errors.Is(err, io.EOF) {
			break
		}
	}
	if started {
		s.census.count(folder, m.end())
	}
	return nil
}

// separates says that a line begins a message of an mbox (RFC 4155, appendix A):
// "From ", an address and a date. Thunderbird writes "From - " and a date. The
// colon of the time tells it from a sentence that was not quoted.
func separates(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("From "))
	if !ok {
		return false
	}
	fields := strings.Fields(string(rest[:min(len(rest), 200)]))
	return len(fields) <= 10 && slices.ContainsFunc(fields, func(f string) bool { return strings.Count(f, ":") >= 1 && f[0] <= '9' })
}
