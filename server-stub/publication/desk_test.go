package publication

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/directory"
	"smime-agent/server-stub/store"
)

// bureau is a desk with a ledger of the test's own and a directory in memory,
// which may fail.
type bureau struct {
	*Desk
	t       *testing.T
	now     time.Time
	serials ca.Serials
	entries []*controlv1.LedgerEntry
	// published is what the directory was last told, by mailbox, and told how often
	// in all.
	published map[string]directory.Wanted
	told      int
	outcome   func(directory.Wanted) (directory.Outcome, error)
	dialErr   error
	held      []bool // what Hold answers; true at the end
	holds     int
	released  int
}

func newBureau(t *testing.T) *bureau {
	t.Helper()
	db, err := store.OpenBolt(filepath.Join(t.TempDir(), "server.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	b := &bureau{t: t, now: time.Now(), published: map[string]directory.Wanted{}}
	b.outcome = func(w directory.Wanted) (directory.Outcome, error) {
		if len(w.Certificate) == 0 {
			return directory.Outcome{State: directory.Withdrawn}, nil
		}
		return directory.Outcome{State: directory.Published, DN: "uid=" + w.Mailbox}, nil
	}
	b.Desk = &Desk{
		Store: db, Now: func() time.Time { return b.now }, Log: slog.New(slog.DiscardHandler),
		Entries: func(visit func(store.Tx, *controlv1.LedgerEntry) bool) error {
			for _, e := range b.entries {
				if !visit(nil, e) {
					break
				}
			}
			return nil
		},
		Issuers: func(*store.Request) [][]byte { return [][]byte{{1}} },
		Dial:    func(context.Context) (Session, error) { return b, b.dialErr },
		Hold: func(context.Context) (bool, error) {
			b.holds++
			if len(b.held) == 0 {
				return true, nil
			}
			mine := b.held[0]
			b.held = b.held[1:]
			return mine, nil
		},
		Release: func(context.Context) error { b.released++; return nil },
	}
	return b
}

// Publish is [Session]'s.
func (b *bureau) Publish(w directory.Wanted) (directory.Outcome, error) {
	b.told++
	b.published[w.Mailbox] = w
	return b.outcome(w)
}

// Close is [Session]'s.
func (b *bureau) Close() error { return nil }

// paper is a certificate in the ledger.
type paper struct {
	*controlv1.LedgerEntry
	cert *x509.Certificate
}

// add puts a certificate into the ledger and the store: the later, the newer.
func (b *bureau) add(profile string, proved bool, mailboxes ...string) paper {
	b.t.Helper()
	serial := b.serials.Next(b.now)
	c := issue(b.t, int64(len(b.entries)+1)).cert
	sum := sha256.Sum256(c.Raw)
	e := &controlv1.LedgerEntry{
		Serial: fmt.Sprint(len(b.entries)), Reference: serial.String(), Type: profile, Mailboxes: mailboxes, FingerprintSha256: hex.EncodeToString(sum[:]),
		NotBefore: timestamppb.New(b.now.Add(time.Duration(len(b.entries)) * time.Second)), NotAfter: timestamppb.New(b.now.Add(1000 * time.Hour)),
		Proof: &controlv1.ProofReport{Ok: proved, Decrypts: proved},
	}
	b.entries = append(b.entries, e)
	record := store.Request{State: store.RequestIssued, Profile: profile, Certificate: c.Raw}
	b.put(store.Certificates, serial[:], record.Encode())
	return paper{e, c}
}

func (b *bureau) put(bucket store.Bucket, key, value []byte) {
	b.t.Helper()
	if err := b.Store.Update(b.t.Context(), func(tx store.Tx) error { return tx.Put(bucket, key, value) }); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bureau) pass() {
	b.t.Helper()
	if err := b.Pass(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// list is what an administrator is shown of a mailbox.
func (b *bureau) list(mailbox string) *controlv1.Publication {
	b.t.Helper()
	var found *controlv1.Publication
	err := b.List(b.t.Context(), &controlv1.ListPublicationsRequest{Matches: mailbox, WithValues: true}, func(r *controlv1.ListPublicationsResponse) error {
		for _, p := range r.GetPublications() {
			if p.GetMailbox() == mailbox {
				found = p
			}
		}
		return nil
	})
	if err != nil || found == nil {
		b.t.Fatalf("%s is not listed: %v", mailbox, err)
	}
	return found
}

const ann = "ann@example.com"

// TestDeskChooses: which certificate of a mailbox is published, and which of those
// in the directory are to go.
func TestDeskChooses(t *testing.T) {
	foreign := issue(t, 99).cert
	for name, c := range map[string]struct {
		set func(b *bureau) []paper
		// want is the index of the one that is published, -1 for none; stale those that go.
		want  int
		stale []int
		state string
	}{
		"the newest that is proved": {func(b *bureau) []paper {
			return []paper{b.add("employee-dual", true, "Ann@Example.com"), b.add("employee-dual", true, ann), b.add("employee-dual", false, ann)}
		}, 1, []int{0, 2}, directory.Published},
		"none is proved": {func(b *bureau) []paper { return []paper{b.add("employee-dual", false, ann)} }, -1, nil, Waiting},
		"proved, but revoked": {func(b *bureau) []paper {
			p := b.add("employee-dual", true, ann)
			p.RevokedAt = timestamppb.New(b.now)
			return []paper{p}
		}, -1, []int{0}, directory.Withdrawn},
		"ended": {func(b *bureau) []paper {
			p := b.add("employee-dual", true, ann)
			p.NotAfter = timestamppb.New(b.now)
			return []paper{p}
		}, -1, []int{0}, directory.Withdrawn},
		"for signing only": {func(b *bureau) []paper {
			return []paper{b.add("employee-sign", true, ann), b.add("employee-encrypt", true, ann)}
		}, 1, []int{0}, directory.Published},
		"the old one serves until the new one is proved": {func(b *bureau) []paper {
			revoked := b.add("employee-dual", true, ann)
			revoked.RevokedAt = timestamppb.New(b.now)
			return []paper{revoked, b.add("employee-dual", false, ann)}
		}, -1, []int{0}, Waiting},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBureau(t)
			papers := c.set(b)
			b.pass()
			w, ok := b.published[ann]
			var want []byte
			if c.want >= 0 {
				want = papers[c.want].cert.Raw
			}
			if !ok || !slices.Equal(w.Certificate, want) {
				t.Fatalf("published %d octets, want %d", len(w.Certificate), len(want))
			}
			for i, p := range papers {
				if got := w.Stale(p.cert); got != slices.Contains(c.stale, i) {
					t.Errorf("certificate %d goes: %v", i, got)
				}
			}
			if w.Stale(foreign) {
				t.Error("somebody else's goes")
			}
			if got := b.list(ann); got.GetState() != c.state || len(got.GetChain()) > 0 != (c.want >= 0) {
				t.Errorf("listed as %s, want %s", got.GetState(), c.state)
			}
		})
	}
}

// TestDeskSignedValue: a value goes along if it is about the chosen certificate and
// its signer's certificate is good; that one is not stale then.
func TestDeskSignedValue(t *testing.T) {
	b := newBureau(t)
	signs, encrypts := b.add("employee-sign", true, ann), b.add("employee-encrypt", true, ann)
	signer, err := ca.ParseSerial(signs.Reference)
	if err != nil {
		t.Fatal(err)
	}
	b.put(store.Publications, signer[:], fmt.Appendf(nil, `{"value": "AQID", "encrypt_to": %q}`, encrypts.Reference))
	b.pass()
	if w := b.published[ann]; !slices.Equal(w.Signed, []byte{1, 2, 3}) || w.Stale(signs.cert) || !b.list(ann).GetSigned() {
		t.Errorf("published %x", w.Signed)
	}
	signs.RevokedAt = timestamppb.New(b.now)
	b.pass()
	if w := b.published[ann]; w.Signed != nil || !w.Stale(signs.cert) || b.told != 2 {
		t.Errorf("published %x of a revoked signer, told %d times", w.Signed, b.told)
	}
}

// TestDeskPace: what was seen right is asked after daily, or when something
// changes; what the directory refuses ever more seldom.
func TestDeskPace(t *testing.T) {
	b := newBureau(t)
	p := b.add("employee-dual", true, ann)
	b.pass()
	b.pass()
	if b.told != 1 || b.released != 1 {
		t.Errorf("told %d times, released %d times", b.told, b.released)
	}
	b.now = b.now.Add(fresh)
	b.pass()
	if seen := b.list(ann).GetSeen().AsTime(); b.told != 2 || !seen.Equal(b.now) {
		t.Errorf("told %d times after a day, seen %v", b.told, seen)
	}
	b.outcome = func(directory.Wanted) (directory.Outcome, error) {
		return directory.Outcome{State: directory.NotFound, Problem: "No entry."}, nil
	}
	p.RevokedAt = timestamppb.New(b.now)
	b.add("employee-dual", true, ann)
	told := b.told
	var waits []time.Duration
	for last := b.now; b.told < told+16; b.now = b.now.Add(30 * time.Second) {
		before := b.told
		b.pass()
		if b.told > before {
			waits = append(waits, b.now.Sub(last))
			last = b.now
		}
	}
	if !slices.IsSorted(waits[1:]) || waits[1] != firstAgain || waits[len(waits)-1] != lastAgain {
		t.Errorf("waits %v", waits)
	}
	if got := b.list(ann); got.GetState() != directory.NotFound || got.GetProblem() != "No entry." || got.GetNextTry() == nil {
		t.Errorf("%+v", got)
	}
	told = b.told
	if err := b.List(t.Context(), &controlv1.ListPublicationsRequest{Now: true}, func(*controlv1.ListPublicationsResponse) error { return nil }); err != nil || b.told != told+1 {
		t.Errorf("an administrator who asks is not answered at once: %v", err)
	}
}

// TestDeskOutage: a directory that cannot be reached, or goes away in the middle,
// is tried again; what was done before counts, and the reason is shown.
func TestDeskOutage(t *testing.T) {
	b := newBureau(t)
	for _, name := range []string{"a", "b", "c"} {
		b.add("employee-dual", true, name+"@example.com")
	}
	gone := errors.New("no way to ldap.example.com")
	b.dialErr = gone
	for want := firstAgain; want <= 4*firstAgain; want *= 2 {
		if err := b.Pass(t.Context()); !errors.Is(err, gone) || b.backoff() != want || b.told != 0 {
			t.Fatalf("%v, next in %v", err, b.backoff())
		}
	}
	if got := b.list("a@example.com"); got.GetState() != Waiting || got.GetProblem() != gone.Error() {
		t.Errorf("%+v", got)
	}
	b.dialErr = nil
	good := b.outcome
	b.outcome = func(w directory.Wanted) (directory.Outcome, error) {
		if w.Mailbox == "b@example.com" {
			return directory.Outcome{}, gone
		}
		return good(w)
	}
	if err := b.Pass(t.Context()); !errors.Is(err, gone) || b.told != 2 {
		t.Fatalf("%v after %d", err, b.told)
	}
	b.outcome = good
	b.pass()
	if b.told != 4 || b.backoff() != firstAgain || b.list("a@example.com").GetProblem() != "" {
		t.Errorf("told %d times, next after a failure in %v", b.told, b.backoff())
	}
	for _, name := range []string{"a", "b", "c"} {
		if got := b.list(name + "@example.com").GetState(); got != directory.Published {
			t.Errorf("%s is %s", name, got)
		}
	}
	if b.released != 5 {
		t.Errorf("released %d times", b.released)
	}
}

// TestDeskTurn: while another server writes, this one does not, and it stops when
// it has lost its turn in the middle.
func TestDeskTurn(t *testing.T) {
	b := newBureau(t)
	for i := range turnPart + 5 {
		b.add("employee-dual", true, fmt.Sprintf("p%03d@example.com", i))
	}
	b.held = []bool{false}
	if err := b.Pass(t.Context()); !errors.Is(err, ErrTurn) {
		t.Errorf("out of turn: %v", err)
	}
	if b.told != 0 || b.released != 0 {
		t.Errorf("wrote %d out of turn", b.told)
	}
	b.held = []bool{true, false}
	if err := b.Pass(t.Context()); !errors.Is(err, ErrTurn) {
		t.Errorf("with the turn lost: %v", err)
	}
	if b.told != turnPart-1 {
		t.Errorf("wrote %d, want to stop at %d", b.told, turnPart-1)
	}
	b.pass()
	if b.told != turnPart+5 || len(b.published) != turnPart+5 {
		t.Errorf("wrote %d of %d", b.told, len(b.published))
	}
}

// shared is a store that other servers write to as well.
type shared struct{ store.Store }

// Listen is [store.Shared]'s.
func (shared) Listen(ctx context.Context, _ func(string), _ func()) { <-ctx.Done() }

// TestDeskAfterAnother: what is written is what is wanted when the turn is ours,
// not what was before another server had it.
func TestDeskAfterAnother(t *testing.T) {
	b := newBureau(t)
	b.Store = shared{b.Store}
	p := b.add("employee-dual", true, ann)
	b.Hold = func(context.Context) (bool, error) {
		p.RevokedAt = timestamppb.New(b.now)
		return true, nil
	}
	b.pass()
	if w := b.published[ann]; b.told != 1 || len(w.Certificate) != 0 {
		t.Errorf("told %d times, a certificate of %d octets that is revoked meanwhile", b.told, len(w.Certificate))
	}
}

// far is a store to which each look that was not announced is a way of its own.
type far struct {
	store.Store
	ways int
}

// View is [store.Store]'s.
func (f *far) View(read func(store.Tx) error) error {
	return f.Store.View(func(tx store.Tx) error { return read(&farTx{Tx: tx, far: f, known: map[string]bool{}}) })
}

// Update is [store.Store]'s.
func (f *far) Update(ctx context.Context, write func(store.Tx) error) error {
	return f.Store.Update(ctx, func(tx store.Tx) error { return write(&farTx{Tx: tx, far: f, known: map[string]bool{}}) })
}

type farTx struct {
	store.Tx
	far   *far
	known map[string]bool
}

// Prefetch is what [store.Prefetch] looks for.
func (t *farTx) Prefetch(refs []store.Ref) {
	t.far.ways++
	for _, r := range refs {
		t.known[string(r.Bucket)+string(r.Key)] = true
	}
}

// Get is [store.Tx]'s.
func (t *farTx) Get(bucket store.Bucket, key []byte) []byte {
	if !t.known[string(bucket)+string(key)] {
		t.far.ways++
	}
	return t.Tx.Get(bucket, key)
}

// Range is [store.Tx]'s: what it shows need not be asked after.
func (t *farTx) Range(bucket store.Bucket, prefix, from []byte, visit func(key, value []byte) bool) {
	t.far.ways++
	t.Tx.Range(bucket, prefix, from, func(key, value []byte) bool {
		t.known[string(bucket)+string(key)] = true
		return visit(key, value)
	})
}

// TestDeskAsksFarStoresSeldom: a company's mailboxes are not asked after one by
// one, of which PostgreSQL allows only so many in a transaction.
func TestDeskAsksFarStoresSeldom(t *testing.T) {
	b := newBureau(t)
	const mailboxes = storePart + 50
	for i := range mailboxes {
		b.add("employee-dual", true, fmt.Sprintf("p%04d@example.com", i))
	}
	b.pass()
	f := &far{Store: b.Store}
	b.Store = f
	b.pass()
	if f.ways > 8 {
		t.Errorf("a pass over %d mailboxes with nothing to do goes %d ways", mailboxes, f.ways)
	}
	f.ways = 0
	if err := b.again(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f.ways > 8 {
		t.Errorf("that all of %d mailboxes are due is noted in %d ways", mailboxes, f.ways)
	}
	told := b.told
	if b.pass(); b.told != told+mailboxes {
		t.Errorf("%d of %d were due", b.told-told, mailboxes)
	}
}

// TestDeskWithoutDirectory: nothing is written, and that is said.
func TestDeskWithoutDirectory(t *testing.T) {
	b := newBureau(t)
	b.add("employee-dual", true, ann)
	b.Dial = nil
	b.pass()
	b.Run(t.Context()) // ends at once
	if got := b.list(ann); got.GetState() != NoDirectory || len(got.GetChain()) != 2 {
		t.Errorf("%+v", got)
	}
	send := func(*controlv1.ListPublicationsResponse) error { return nil }
	if err := b.List(t.Context(), &controlv1.ListPublicationsRequest{Now: true}, send); !errors.Is(err, ErrNoDirectory) {
		t.Errorf("asked to write at once: %v", err)
	}
}

// TestDeskRuns: it follows what it is told of, and ends with its context.
func TestDeskRuns(t *testing.T) {
	b := newBureau(t)
	b.add("employee-dual", true, ann)
	wrote := make(chan string, 10)
	good := b.outcome
	b.outcome = func(w directory.Wanted) (directory.Outcome, error) {
		wrote <- w.Mailbox
		return good(w)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { b.Run(ctx); close(ended) }()
	select {
	case <-wrote:
	case <-time.After(time.Minute):
		t.Fatal("nothing was written")
	}
	cancel()
	b.Poke()
	<-ended
}
