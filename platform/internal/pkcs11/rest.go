//go:build cgo || windows

package pkcs11

import (
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"
)

// restFor is how long a library stays initialized after a use. The steps of one
// enrollment follow each other faster.
const restFor = time.Second

// rest is a library between two uses. No session is open, so no login lasts
// (PKCS #11 v2.40 §5.6: closing the last session logs out), and no lock is held.
// The next use goes on with it only if the place is the same and its files are
// as this process left them. What other programs write is seen by SQLite
// anyway; that the password was changed is seen only at C_Initialize, and a
// changed password is a changed file.
type rest struct {
	init  string
	files []fs.FileInfo
	timer *time.Timer
}

// rest leaves the library initialized for a moment. Callers have the turn.
func (m *Module) rest(p Place) {
	r := &rest{init: p.Init, files: stateOf(p.Files)}
	r.timer = time.AfterFunc(restFor, func() { m.endRest(r) })
	m.resting = r
	m.rests.Store(true)
}

// endRest finalizes the library, unless somebody has ended the rest meanwhile.
func (m *Module) endRest(r *rest) {
	m.turn <- struct{}{}
	defer func() { <-m.turn }()
	if m.resting == r {
		m.wake()
	}
}

// wakeOthers ends the rests of all other libraries. Callers hold loaded.nss, so
// that none of them begins another.
func (m *Module) wakeOthers() {
	loaded.Lock()
	others := slices.Collect(maps.Values(loaded.modules))
	loaded.Unlock()
	for _, o := range others {
		if o == m || !o.rests.Load() {
			continue
		}
		o.turn <- struct{}{} // held by the end of its rest at most
		if r := o.resting; r != nil {
			r.timer.Stop()
			o.wake()
		}
		<-o.turn
	}
}

// wake ends the rest. Callers have the turn. What is wrong with the library, its
// next use says.
func (m *Module) wake() {
	m.resting = nil
	m.rests.Store(false)
	_ = m.finalize()
}

// goesOn says that a use of p may go on where the last one ended. A token that
// no longer says that its PIN was set is one that cannot be read just now (NSS
// while another program holds SQLite's lock): C_Initialize makes an error of it.
func (r *rest) goesOn(p Place) bool {
	if r.init != p.Init || !slices.EqualFunc(r.files, stateOf(p.Files), sameState) {
		return false
	}
	token, err := p.find(p.Module.c)
	return err == nil && token.PINSet()
}

// stateOf looks at the files; nil stands for one that is not there.
func stateOf(paths []string) []fs.FileInfo {
	state := make([]fs.FileInfo, 0, len(paths))
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			info = nil
		}
		state = append(state, info)
	}
	return state
}

// sameState: a file that is not there is never the same, for it may have been
// made and removed.
func sameState(a, b fs.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
