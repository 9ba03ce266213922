package oldmail

import (
	"cmp"
	"maps"
	"slices"
)

// Presence is what is known of a key.
type Presence string

// The kinds of presence.
const (
	Here Presence = "here"
	// Gone: there was such a key, and it is no longer in its store.
	Gone Presence = "gone"
	// Unseen: its store cannot be looked into now.
	Unseen Presence = "unseen"
	// Unknown: nobody knows of such a key here.
	Unknown Presence = "unknown"
)

// Key is a certificate that the person has or had.
type Key struct {
	Identity
	Presence Presence
	// Name is the caller's own for it.
	Name string
}

// Use is how many messages need one key.
type Use struct {
	Key
	Messages int
	// Folders has the same by folder or file.
	Folders []Folder
}

// Folder is how many messages a folder or file has.
type Folder struct {
	Path     string `json:"path"`
	Messages int    `json:"messages"`
}

// Account says of every encrypted message that names its recipients whether it
// can be opened.
type Account struct {
	// Opened are the messages for which a key is here.
	Opened int
	// Unseen are those that may open with a key whose store cannot be looked into.
	Unseen int
	// Closed are those that no key here opens.
	Closed int
	// Unnamed are those of the closed ones whose keys are not among Uses, because
	// there would be too many.
	Unnamed int
	// Uses has the keys that messages need, those that the caller named in his
	// order. One message may count for several keys that are here.
	Uses []Use
}

// Account lays what was found against keys. For messages that no named key
// opens, some recipients are named that account for most of them; another
// person's certificate can be among these where a message went to several.
func (c *Census) Account(keys []Key) Account {
	a := accounting{uses: make([]use, len(keys))}
	for i, k := range keys {
		a.uses[i] = use{key: k, folders: map[string]int{}}
	}
	for _, g := range c.sorted() {
		a.add(g)
	}
	a.nameStrangers()
	return a.result()
}

type use struct {
	key      Key
	messages int
	folders  map[string]int
}

func (u *use) add(g *group) {
	u.messages += g.messages
	for path, n := range g.folders {
		u.folders[path] += n
	}
}

type accounting struct {
	account   Account
	uses      []use
	strangers []*group
}

// add counts a group of messages for the best that is known of its keys.
func (a *accounting) add(g *group) {
	best := Unknown
	for i := range a.uses {
		if g.isFor(a.uses[i].key) && rank(a.uses[i].key.Presence) < rank(best) {
			best = a.uses[i].key.Presence
		}
	}
	switch best {
	case Here:
		a.account.Opened += g.messages
	case Unseen:
		a.account.Unseen += g.messages
	case Gone, Unknown:
		a.account.Closed += g.messages
	}
	if best == Unknown {
		a.strangers = append(a.strangers, g)
		return
	}
	for i := range a.uses {
		if a.uses[i].key.Presence == best && g.isFor(a.uses[i].key) {
			a.uses[i].add(g)
		}
	}
}

func (g *group) isFor(k Key) bool {
	return slices.ContainsFunc(g.recipients, func(id Identity) bool { return id.means(k.Identity) })
}

func rank(p Presence) int {
	return slices.Index([]Presence{Here, Unseen, Gone, Unknown}, p)
}

// maxStrangers is how many certificates are named that nobody knows of here.
const maxStrangers = 50

// nameStrangers finds few recipients that account for all messages that nobody's
// key opens: again and again the one that most of those left are encrypted to.
func (a *accounting) nameStrangers() {
	left := a.strangers
	for range maxStrangers {
		if len(left) == 0 {
			return
		}
		votes := map[Identity]int{}
		for _, g := range left {
			for _, id := range g.recipients {
				votes[id] += g.messages
			}
		}
		winner := slices.MinFunc(slices.Collect(maps.Keys(votes)), func(x, y Identity) int {
			return cmp.Or(cmp.Compare(votes[y], votes[x]), x.compare(y))
		})
		u := use{key: Key{Identity: winner, Presence: Unknown}, folders: map[string]int{}}
		left = slices.DeleteFunc(left, func(g *group) bool {
			hit := slices.Contains(g.recipients, winner)
			if hit {
				u.add(g)
			}
			return hit
		})
		a.uses = append(a.uses, u)
	}
	for _, g := range left {
		a.account.Unnamed += g.messages
	}
}

// maxFolders is how many folders are named for one key, those with most messages.
const maxFolders = 20

func (a *accounting) result() Account {
	for _, u := range a.uses {
		if u.messages == 0 {
			continue
		}
		var folders []Folder
		for path, n := range u.folders {
			folders = append(folders, Folder{Path: path, Messages: n})
		}
		slices.SortFunc(folders, func(x, y Folder) int {
			return cmp.Or(cmp.Compare(y.Messages, x.Messages), cmp.Compare(x.Path, y.Path))
		})
		folders = folders[:min(len(folders), maxFolders)]
		a.account.Uses = append(a.account.Uses, Use{Key: u.key, Messages: u.messages, Folders: folders})
	}
	return a.account
}
