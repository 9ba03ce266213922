package platformtest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// PowerLoss plays a [WriteLog] against a disk that loses its power after any
// of the calls. The disk may then have any of the writes since the last fsync
// of a file, in any order, or one of them by half, in sectors of 512 bytes; and
// of the names that were made, changed and removed since the last fsync of their
// folder any first part. That is less than POSIX promises and more than any
// one file system does wrong: ext4, XFS and Btrfs keep names in order, and
// write a new file's folders along with it.
type PowerLoss struct {
	// Log is what was done; Root the folder that is looked at. Before are the files
	// that were there, by their paths below it; a path with a slash at its end is a folder.
	Log    *WriteLog
	Root   string
	Before map[string][]byte
	// Heed is a path whose writes count as said although it is below the root.
	Heed string
	// PerCall is how many states each call adds, beside the four plain ones; a few.
	PerCall int
	Random  *rand.Rand

	names   map[string]*node
	live    map[string]*node
	pending []naming
	seen    map[[sha256.Size]byte]bool
	states  int
	err     error
}

var errUnknownCall = errors.New("a call that this disk does not know")

// node is a file or a folder.
type node struct {
	folder  bool
	synced  []byte
	pending []write
	size    int64
}

// write is data at a place, or, if data is nil, the end of the file there.
type write struct {
	of    *node
	at    int64
	data  []byte
	ended int64
}

// naming makes a name for a node, or takes it away (nil); renaming is both at once.
type naming struct {
	path, gone string
	of         *node
	ended      int64
}

func (n naming) apply(names map[string]*node) {
	if n.gone != "" {
		delete(names, n.gone)
	}
	if n.path != "" {
		names[n.path] = n.of
	}
}

// Crash is what the disk has when it has power again.
type Crash struct {
	// Call counts the calls that were made until then, and How says what of the rest arrived.
	Call int
	How  string
	// Said is what the processes wrote to elsewhere than Root before: what they
	// acknowledged.
	Said  []Said
	Files map[string][]byte
	// Folders are all that there are, parents first.
	Folders []string
}

// Said is a text that was written to a place outside, such as a pipe or a log.
type Said struct{ To, Text string }

// Put writes the crash into an empty folder.
func (c Crash) Put(dir string) error {
	for _, f := range c.Folders {
		if err := os.MkdirAll(filepath.Join(dir, f), 0o700); err != nil {
			return err
		}
	}
	for name, data := range c.Files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Each hands out the states, each once, until look fails. It gives how many
// there were.
func (p *PowerLoss) Each(look func(Crash) error) (int, error) {
	p.names, p.seen = map[string]*node{p.Root: {folder: true}}, map[[sha256.Size]byte]bool{}
	for name, data := range p.Before {
		path := filepath.Join(p.Root, name)
		p.names[path] = &node{synced: data, size: int64(len(data)), folder: strings.HasSuffix(name, "/")}
		for dir := filepath.Dir(path); p.names[dir] == nil; dir = filepath.Dir(dir) {
			p.names[dir] = &node{folder: true}
		}
	}
	p.live = maps.Clone(p.names)
	var said []Said
	for i := range p.Log.calls {
		c := &p.Log.calls[i]
		took := p.take(c)
		if p.err != nil {
			return p.states, p.err
		}
		if text, ok := c.said(); ok && (!took || text.To == p.Heed) {
			said = append(said, text)
		}
		if !took {
			continue
		}
		for _, s := range p.after() {
			crash := s.crash(p)
			crash.Call, crash.Said = i, said
			if !p.fresh(crash) {
				continue
			}
			if err := look(crash); err != nil {
				return p.states, fmt.Errorf("call %d (%s), %s: %w", i, c.name, crash.How, err)
			}
		}
	}
	return p.states, nil
}

// fresh counts a state that was not there before. What was said belongs to it:
// with more acknowledged, the same files may be too few.
func (p *PowerLoss) fresh(c Crash) bool {
	h := sha256.New()
	fmt.Fprintln(h, len(c.Said))
	for _, name := range slices.Sorted(maps.Keys(c.Files)) {
		fmt.Fprintln(h, name, len(c.Files[name]))
		h.Write(c.Files[name])
	}
	sum := [sha256.Size]byte(h.Sum(nil))
	if p.seen[sum] {
		return false
	}
	p.seen[sum] = true
	p.states++
	return true
}

func (c *call) said() (Said, bool) {
	if c.name != "write" {
		return Said{}, false
	}
	return Said{c.file(0), unhex(c.arg(1))}, true
}

func (p *PowerLoss) below(path string) bool { return strings.HasPrefix(path, p.Root+"/") }

// take does what a call did; false if it did nothing below the root.
func (p *PowerLoss) take(c *call) bool {
	switch c.name {
	case "openat", "openat2", "creat":
		return p.open(c)
	case "write":
		return p.write(c, -1)
	case "pwrite64":
		return p.write(c, c.number(3))
	case "ftruncate":
		return p.change(c, write{at: c.number(1)})
	case "fsync", "fdatasync":
		return p.sync(c)
	case "rename":
		return p.rename(c, c.path(-1, 0), c.path(-1, 1))
	case "renameat", "renameat2":
		return p.rename(c, c.path(0, 1), c.path(2, 3))
	case "unlink", "rmdir":
		return p.name(naming{gone: c.path(-1, 0), ended: c.ended})
	case "unlinkat":
		return p.name(naming{gone: c.path(0, 1), ended: c.ended})
	case "link":
		return p.name(naming{path: c.path(-1, 1), of: p.live[c.path(-1, 0)], ended: c.ended})
	case "linkat":
		return p.name(naming{path: c.path(2, 3), of: p.live[c.path(0, 1)], ended: c.ended})
	case "mkdir":
		return p.name(naming{path: c.path(-1, 0), of: &node{folder: true}, ended: c.ended})
	case "mkdirat":
		return p.name(naming{path: c.path(0, 1), of: &node{folder: true}, ended: c.ended})
	}
	if p.below(c.file(0)) || p.below(c.file(2)) {
		p.err = fmt.Errorf("%w: %s below %s", errUnknownCall, c.name, p.Root)
	}
	return false
}

func (p *PowerLoss) open(c *call) bool {
	flags := c.arg(2)
	if c.name == "creat" {
		flags = "O_CREAT|O_TRUNC"
	}
	if !p.below(c.opened) {
		return false
	}
	done := false
	if p.live[c.opened] == nil && strings.Contains(flags, "O_CREAT") {
		done = p.name(naming{path: c.opened, of: &node{}, ended: c.ended})
	}
	if n := p.live[c.opened]; n != nil && strings.Contains(flags, "O_TRUNC") && n.size > 0 {
		n.add(write{of: n, ended: c.ended})
		done = true
	}
	return done
}

// write without a place is behind what is there: nothing here writes otherwise.
func (p *PowerLoss) write(c *call, at int64) bool {
	data := []byte(unhex(c.arg(1)))
	if int64(len(data)) < c.result {
		p.err = errors.New("strace left something out of a write")
		return false
	}
	return c.result > 0 && p.change(c, write{at: at, data: data[:c.result]})
}

func (p *PowerLoss) change(c *call, w write) bool {
	n := p.live[c.file(0)]
	if n == nil || n.folder {
		return false
	}
	if w.at < 0 {
		w.at = n.size
	}
	w.of, w.ended = n, c.ended
	n.add(w)
	return true
}

func (n *node) add(w write) {
	n.pending = append(n.pending, w)
	n.size = max(n.size, w.at+int64(len(w.data)))
	if w.data == nil {
		n.size = w.at
	}
}

func (p *PowerLoss) rename(c *call, from, to string) bool {
	n := p.live[from]
	if n == nil || n.folder {
		return false
	}
	return p.name(naming{path: to, gone: from, of: n, ended: c.ended})
}

func (p *PowerLoss) name(n naming) bool {
	if !p.below(n.path) && !p.below(n.gone) {
		return false
	}
	n.apply(p.live)
	p.pending = append(p.pending, n)
	return true
}

// sync makes sure what was done before it began: to a file its data, to a folder
// its names, and in either case the folders on the way to it.
func (p *PowerLoss) sync(c *call) bool {
	path := c.file(0)
	n := p.live[path]
	if n == nil {
		return false
	}
	var later []write
	for _, w := range n.pending {
		if w.ended <= c.begun {
			n.synced = w.apply(n.synced)
		} else {
			later = append(later, w)
		}
	}
	n.pending = later
	p.pending = slices.DeleteFunc(p.pending, func(m naming) bool {
		inIt := n.folder && (filepath.Dir(m.path) == path || filepath.Dir(m.gone) == path)
		onTheWay := m.of != nil && m.of.folder && (m.path == path || strings.HasPrefix(path, m.path+"/"))
		if m.ended > c.begun || !inIt && !onTheWay {
			return false
		}
		m.apply(p.names)
		return true
	})
	return true
}

func (w write) apply(content []byte) []byte {
	if w.data == nil {
		if int(w.at) <= len(content) {
			return content[:w.at:w.at]
		}
		return append(slices.Clip(content), make([]byte, int(w.at)-len(content))...)
	}
	end := int(w.at) + len(w.data)
	out := bytes.Clone(content)
	if end > len(out) {
		out = append(out, make([]byte, end-len(out))...)
	}
	copy(out[w.at:], w.data)
	return out
}

// selection is what of the pending arrived.
type selection struct {
	how    string
	names  int
	writes []write // in the order of their arrival
}

// after makes selections: nothing, all, and each kind alone; and some at random.
func (p *PowerLoss) after() []selection {
	var all []write
	for _, n := range p.nodes() {
		all = append(all, n.pending...)
	}
	slices.SortStableFunc(all, func(a, b write) int { return int(a.ended - b.ended) })
	made := len(p.pending)
	out := []selection{{"nothing arrived", 0, nil}, {"all arrived", made, all}, {"names only", made, nil}, {"data only", 0, all}}
	for range p.PerCall {
		if len(all)+made < 2 && (len(all) == 0 || len(all[0].data) <= sector) {
			break
		}
		out = append(out, p.draw(all))
	}
	return out
}

// nodes are all files that have a name, or may have one.
func (p *PowerLoss) nodes() []*node {
	var all []*node
	add := func(n *node) {
		if n != nil && !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.names)) {
		add(p.names[name])
	}
	for _, n := range p.pending {
		add(n.of)
	}
	return all
}

const sector = 512

func (p *PowerLoss) draw(all []write) selection {
	s := selection{names: p.Random.IntN(len(p.pending) + 1)}
	torn := 0
	for _, w := range all {
		switch p.Random.IntN(4) {
		case 0: // lost
		case 1:
			if len(w.data) <= sector {
				break
			}
			torn++
			for at := 0; at < len(w.data); at += sector {
				if p.Random.IntN(2) == 0 {
					s.writes = append(s.writes, write{of: w.of, at: w.at + int64(at), data: w.data[at:min(at+sector, len(w.data))]})
				}
			}
		default:
			s.writes = append(s.writes, w)
		}
	}
	p.Random.Shuffle(len(s.writes), func(i, j int) { s.writes[i], s.writes[j] = s.writes[j], s.writes[i] })
	s.how = fmt.Sprintf("%d of %d names, %d pieces of %d writes, %d torn", s.names, len(p.pending), len(s.writes), len(all), torn)
	return s
}

func (s selection) crash(p *PowerLoss) Crash {
	names := maps.Clone(p.names)
	for _, n := range p.pending[:s.names] {
		n.apply(names)
	}
	content := map[*node][]byte{}
	for _, w := range s.writes {
		old, ok := content[w.of]
		if !ok {
			old = w.of.synced
		}
		content[w.of] = w.apply(old)
	}
	c := Crash{How: s.how, Files: map[string][]byte{}}
	for _, path := range slices.Sorted(maps.Keys(names)) {
		n := names[path]
		rel, err := filepath.Rel(p.Root, path)
		if err != nil || n == nil || !reachable(names, p.Root, path) {
			continue
		}
		if n.folder {
			c.Folders = append(c.Folders, rel)
			continue
		}
		data, ok := content[n]
		if !ok {
			data = n.synced
		}
		c.Files[rel] = data
	}
	return c
}

// reachable says that all folders on the way are there.
func reachable(names map[string]*node, root, path string) bool {
	for dir := filepath.Dir(path); dir != root && len(dir) > len(root); dir = filepath.Dir(dir) {
		if n := names[dir]; n == nil || !n.folder {
			return false
		}
	}
	return true
}
