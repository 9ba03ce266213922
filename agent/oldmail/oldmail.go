// Package oldmail says which keys the mail on a machine needs: it reads to whom
// the encrypted messages in folders are encrypted, and nothing else of them. It
// logs nothing, and neither its results nor its errors hold a part of a message.
package oldmail

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"smime-agent/agent/smime"
)

// ErrNoMail says that nothing at a place looks like mail.
var ErrNoMail = errors.New("no mail found")

// Census is what a scan found: counts, and to whom messages are encrypted.
type Census struct {
	// Files are those that mail was read from, Messages all messages in them
	// without those that a mail program has marked as deleted, Encrypted those of
	// them that are encrypted by S/MIME.
	Files, Messages, Encrypted int
	// Obscure are encrypted messages that do not say for whom in a way that this
	// package understands: damaged ones, or with a shared key or a password.
	Obscure int
	// Closed are files that hold mail in a form that only their own program reads
	// (Outlook's .pst and .ost), Failed those that could not be read.
	Closed, Failed int
	// groups has the messages by the set of their recipients.
	groups map[[sha256.Size]byte]*group
	named  int // identities in groups
}

// group is how many messages are encrypted to the same recipients, by folder.
type group struct {
	recipients []Identity
	messages   int
	folders    map[string]int
}

// Scan reads the mail at a path: a Maildir, an mbox, a single message, or a
// folder with any of these in or below it, such as a profile of Thunderbird. It
// changes nothing and follows no symbolic links below path. A file that cannot
// be read is counted; [ErrNoMail] if there was nothing to read.
func Scan(ctx context.Context, path string) (*Census, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("look for mail: %w", err)
	}
	s := scan{ctx: ctx, census: newCensus()}
	if info.IsDir() {
		err = s.folder(path)
	} else {
		s.named(path)
	}
	if err = errors.Join(err, ctx.Err()); err != nil {
		return nil, fmt.Errorf("look for mail: %w", err)
	}
	if c := s.census; c.Files+c.Closed+c.Failed == 0 {
		return nil, fmt.Errorf("%s: %w", path, ErrNoMail)
	}
	return s.census, nil
}

// maxIdentities bounds what a hostile mailbox can make us keep (about 100 MB);
// real ones have some thousand.
const maxIdentities = 400_000

// maxNamed is how many recipients of one message are remembered. A message to
// more people than that is rare, and one's own certificate stands among the
// first: mail programs begin or end with it, and both ends are kept.
const maxNamed = 64

// count adds one message.
func (c *Census) count(folder string, m found) {
	if m.deleted {
		return
	}
	c.Messages++
	if !m.encrypted {
		return
	}
	c.Encrypted++
	ids := identities(m.recipients)
	if len(ids) == 0 {
		c.Obscure++
		return
	}
	key := setKey(ids)
	g := c.groups[key]
	if g == nil {
		if c.named += len(ids); c.named > maxIdentities {
			c.named -= len(ids)
			c.Obscure++
			return
		}
		g = &group{recipients: ids, folders: map[string]int{}}
		c.groups[key] = g
	}
	g.messages++
	g.folders[folder]++
}

func identities(recipients []smime.Recipient) []Identity {
	if n := len(recipients); n > maxNamed {
		recipients = slices.Concat(recipients[:maxNamed/2], recipients[n-maxNamed/2:])
	}
	ids := make([]Identity, 0, len(recipients))
	for _, r := range recipients {
		if id := identityOf(r); id != (Identity{}) && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, Identity.compare)
	return ids
}

func setKey(ids []Identity) [sha256.Size]byte {
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(id.Issuer + "\x00" + id.Serial + "\x00" + id.KeyID + "\x01")
	}
	return sha256.Sum256([]byte(b.String()))
}

// sorted gives the groups in an order that does not change from run to run.
func (c *Census) sorted() []*group {
	keys := slices.SortedFunc(maps.Keys(c.groups), func(a, b [sha256.Size]byte) int { return bytes.Compare(a[:], b[:]) })
	all := make([]*group, 0, len(keys))
	for _, key := range keys {
		all = append(all, c.groups[key])
	}
	return all
}

func newCensus() *Census { return &Census{groups: map[[sha256.Size]byte]*group{}} }
