package local

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"smime-agent/agent/enroll"
	localv1 "smime-agent/proto/local/v1"
)

// memory is an enroll.Session that remembers what it was asked and answers as
// it was told.
type memory struct {
	mu      sync.Mutex
	asked   []any
	err     error
	block   chan struct{} // if not nil, tasks wait for it or for their context
	entered chan struct{}
	broken  bool
	ended   chan error // what a blocked task's context said
}

func newMemory() *memory {
	return &memory{entered: make(chan struct{}, 64), ended: make(chan error, 64)}
}

func (m *memory) task(ctx context.Context, asked any) error {
	m.mu.Lock()
	m.asked = append(m.asked, asked)
	err, block, broken := m.err, m.block, m.broken
	m.mu.Unlock()
	if broken {
		panic("planted")
	}
	m.entered <- struct{}{}
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			m.ended <- ctx.Err()
			return ctx.Err()
		}
	}
	return err
}

func (m *memory) last() any {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.asked) == 0 {
		return nil
	}
	return m.asked[len(m.asked)-1]
}

var (
	made  = enroll.RequestMade{CSR: []byte{1, 2}, Algorithm: "p-256", Protection: "software"}
	proof = enroll.Proof{At: moment, Signs: true, Decrypts: true, ChainOK: true, Algorithms: []string{"p-256"}, Protection: "software", Failure: "not all"}
	found = enroll.Inventory{
		Stores:   []enroll.StoreFound{{Name: "nss:default", Protection: "software", Algorithms: []string{"p-256"}, Consumers: []string{"Thunderbird"}, CostlyKeys: true}},
		Keys:     []enroll.KeyFound{{ID: "smime-1", Store: "nss:default", PublicKey: []byte{3}, Chain: [][]byte{{4}, {5}}, Created: moment}, {ID: "smime-2"}},
		Failures: []*enroll.Error{{Kind: enroll.Waiting, Code: enroll.CodeStoreLocked, Hint: "Unlock it.", Err: errors.New("detail")}},
	}
	mail = []enroll.MailAccount{
		{Program: "thunderbird", Title: "Thunderbird", ID: "x.default/id1", Mailbox: "a@b.example", Store: "nss:x.default",
			State: enroll.MailBusy, ByHand: []string{"sign"}, Own: []string{"signing-certificate"}, Detail: "open", Changed: true},
		{Program: "outlook", State: enroll.MailFailed}, {Program: "apple-mail", State: enroll.MailUndone},
	}
	modules = []enroll.Module{{Path: "/usr/lib/p11.so", TokenLabel: "CARD"}}

	filedPartners = enroll.PartnersFiled{Filed: 2, Withdrawn: 1,
		Failures: []*enroll.Error{{Kind: enroll.Waiting, Code: enroll.CodeStoreLocked, Hint: "Unlock it.", Err: errors.New("detail")}}}
)

func (m *memory) MakeRequest(ctx context.Context, w enroll.RequestWanted) (enroll.RequestMade, error) {
	return made, m.task(ctx, w)
}
func (m *memory) Install(ctx context.Context, w enroll.InstallWanted) error { return m.task(ctx, w) }
func (m *memory) Prepare(ctx context.Context, w enroll.PrepareWanted) ([]enroll.MailAccount, error) {
	return mail, m.task(ctx, w)
}
func (m *memory) Prove(ctx context.Context, w enroll.ProofWanted) (enroll.Proof, error) {
	return proof, m.task(ctx, w)
}

func (m *memory) Inventory(ctx context.Context, modules []enroll.Module) (enroll.Inventory, error) {
	return found, m.task(ctx, modules)
}

func (m *memory) Discard(ctx context.Context, store string, id enroll.ID, modules []enroll.Module) error {
	return m.task(ctx, []any{store, id, modules})
}

func (m *memory) Publish(ctx context.Context, w enroll.PublishWanted) ([]byte, error) {
	return []byte{6, 7}, m.task(ctx, w)
}

func (m *memory) FilePartners(ctx context.Context, certificates [][]byte) (enroll.PartnersFiled, error) {
	return filedPartners, m.task(ctx, certificates)
}

func (m *memory) Ask(ctx context.Context, q enroll.Question) (enroll.Verdict, error) {
	return enroll.Later, m.task(ctx, q)
}
func (m *memory) EnterCode(ctx context.Context, q enroll.CodeQuestion) (string, error) {
	return mailed, m.task(ctx, q)
}
func (m *memory) Notify(ctx context.Context, n enroll.Notice) error { return m.task(ctx, n) }

// mailed is the code that the person in memory enters.
const mailed = "ABCD-EFGH"

// The same suite runs against the session itself and through the socket.
func TestSessionDirectAndOverTheSocket(t *testing.T) {
	t.Run("direct", func(t *testing.T) {
		testSession(t, func(s enroll.Session) enroll.Session { return s })
	})
	t.Run("socket", func(t *testing.T) {
		h := open(t, nil)
		testSession(t, func(s enroll.Session) enroll.Session {
			remote, end := h.lend("1000", s)
			t.Cleanup(end)
			return remote
		})
	})
}

func testSession(t *testing.T, lend func(enroll.Session) enroll.Session) {
	m := newMemory()
	s := lend(m)
	for _, c := range exchanges {
		t.Run(c.name, func(t *testing.T) {
			m.mu.Lock()
			m.err = nil
			m.mu.Unlock()
			got, err := c.call(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if !same(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if !reflect.DeepEqual(m.last(), c.asked) {
				t.Errorf("asked %+v, want %+v", m.last(), c.asked)
			}
			failure := &enroll.Error{Kind: enroll.Final, Code: enroll.CodeStoreUnsuitable, Hint: "Take another.", Err: errors.New("why")}
			m.mu.Lock()
			m.err = failure
			m.mu.Unlock()
			_, err = c.call(t.Context(), s)
			e, ok := errors.AsType[*enroll.Error](err)
			if !ok || e.Kind != failure.Kind || e.Code != failure.Code || e.Hint != failure.Hint || !strings.Contains(e.Error(), "why") {
				t.Errorf("failure came as %v", err)
			}
		})
	}
}

// same compares but for errors, of which only the text crosses the socket.
func same(a, b any) bool {
	x, ok := a.(enroll.Inventory)
	if !ok {
		return reflect.DeepEqual(a, b)
	}
	y := b.(enroll.Inventory)
	for i, f := range x.Failures {
		g := y.Failures[i]
		if f.Kind != g.Kind || f.Code != g.Code || f.Hint != g.Hint || f.Error() != g.Error() {
			return false
		}
	}
	return reflect.DeepEqual(x.Stores, y.Stores) && reflect.DeepEqual(x.Keys, y.Keys) && len(x.Failures) == len(y.Failures)
}

type exchange struct {
	name        string
	call        func(context.Context, enroll.Session) (any, error)
	want, asked any
}

var exchanges = func() []exchange {
	request := enroll.RequestWanted{
		ID: "smime-1", Store: "nss:default", Keys: []string{"p-256"}, Mailboxes: []string{"a@b.example"}, DisplayName: "Ann",
		Sign: true, Encrypt: true, Modules: modules, ReuseKeyOf: "smime-0",
	}
	install := enroll.InstallWanted{ID: "smime-1", Store: "file", Chain: [][]byte{{1}, {2}}, Trust: [][]byte{{3}}, Modules: modules}
	prove := enroll.ProofWanted{
		ID: "smime-1", Store: "file", Mailbox: "a@b.example", Chain: [][]byte{{1}}, Anchors: [][]byte{{2}},
		Sign: true, Encrypt: true, Kept: true, Modules: modules,
	}
	publish := enroll.PublishWanted{ID: "smime-1", Store: "file", Chain: [][]byte{{1}}, EncryptTo: [][]byte{{2}}, Modules: modules, Now: moment}
	prepare := enroll.PrepareWanted{
		ID: "smime-1", Store: "file", Mailboxes: []string{"a@b.example"}, Chain: [][]byte{{1}}, Sign: true, Encrypt: true,
		Earlier: [][]byte{{3}}, Prepared: []string{"outlook x"},
		Rule: enroll.MailRule{Programs: []string{"*"}, Sign: enroll.MailAlways, Encrypt: enroll.MailNever, ClearSign: enroll.MailUser, Hash: "sha-256", Cipher: "aes-256"},
	}
	undo := prepare
	undo.Undo = true
	question := enroll.Question{
		ID: "smime-1", Organization: "Contoso", Contact: "it", Mailbox: "a@b.example", Reason: enroll.ReasonFirst,
		Note: map[string]string{"en": "Note."}, PostponementsLeft: 2, ProgramsAsk: true,
	}
	code := enroll.CodeQuestion{ID: "smime-1", Organization: "Contoso", Contact: "it", Mailbox: "a@b.example", Wrong: true}
	notice := enroll.Notice{ID: "smime-1", Code: enroll.NoticeEnrolled, Organization: "Contoso", Contact: "it", Mailbox: "a@b.example", ProgramsAsk: true}
	return []exchange{
		{"request", func(ctx context.Context, s enroll.Session) (any, error) { return s.MakeRequest(ctx, request) }, made, request},
		{"install", func(ctx context.Context, s enroll.Session) (any, error) { return nil, s.Install(ctx, install) }, nil, install},
		{"prepare", func(ctx context.Context, s enroll.Session) (any, error) { return s.Prepare(ctx, prepare) }, mail, prepare},
		{"undo", func(ctx context.Context, s enroll.Session) (any, error) { return s.Prepare(ctx, undo) }, mail, undo},
		{"prove", func(ctx context.Context, s enroll.Session) (any, error) { return s.Prove(ctx, prove) }, proof, prove},
		{"inventory", func(ctx context.Context, s enroll.Session) (any, error) { return s.Inventory(ctx, modules) }, found, modules},
		{"discard", func(ctx context.Context, s enroll.Session) (any, error) {
			return nil, s.Discard(ctx, "file", "smime-1", modules)
		}, nil, []any{"file", enroll.ID("smime-1"), modules}},
		{"publish", func(ctx context.Context, s enroll.Session) (any, error) { return s.Publish(ctx, publish) }, []byte{6, 7}, publish},
		{"partners", func(ctx context.Context, s enroll.Session) (any, error) {
			p, err := s.FilePartners(ctx, [][]byte{{8}, {9}})
			return enroll.Inventory{Failures: p.Failures, Stores: countsOf(p)}, err
		}, enroll.Inventory{Failures: filedPartners.Failures, Stores: countsOf(filedPartners)}, [][]byte{{8}, {9}}},
		{"ask", func(ctx context.Context, s enroll.Session) (any, error) { return s.Ask(ctx, question) }, enroll.Later, question},
		{"code", func(ctx context.Context, s enroll.Session) (any, error) { return s.EnterCode(ctx, code) }, mailed, code},
		{"notify", func(ctx context.Context, s enroll.Session) (any, error) { return nil, s.Notify(ctx, notice) }, nil, notice},
	}
}()

// countsOf puts the counts where [same] looks.
func countsOf(p enroll.PartnersFiled) []enroll.StoreFound {
	return []enroll.StoreFound{{Name: fmt.Sprint(p.Filed, p.Withdrawn)}}
}

func TestTasksRunSideBySide(t *testing.T) {
	h, m := open(t, nil), newMemory()
	m.block = make(chan struct{})
	s, end := h.lend("1000", m)
	defer end()
	asked := make(chan error, 1)
	go func() {
		_, err := s.Ask(t.Context(), enroll.Question{ID: "smime-1"})
		asked <- err
	}()
	<-m.entered
	m.mu.Lock()
	block := m.block
	m.block = nil
	m.mu.Unlock()
	if err := s.Notify(t.Context(), enroll.Notice{}); err != nil {
		t.Fatal("a task waits for the person: ", err)
	}
	close(block)
	if err := <-asked; err != nil {
		t.Error(err)
	}
}

func TestCancellationReachesTheHelper(t *testing.T) {
	h, m := open(t, nil), newMemory()
	m.block = make(chan struct{})
	s, end := h.lend("1000", m)
	defer end()
	for _, stop := range []string{"cancel", "deadline"} {
		ctx, cancel := context.WithCancel(t.Context())
		want := context.Canceled
		if stop == "deadline" {
			ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
			want = context.DeadlineExceeded
		} else {
			time.AfterFunc(100*time.Millisecond, cancel)
		}
		_, err := s.Ask(ctx, enroll.Question{})
		cancel()
		if e := enroll.AsError(err); !errors.Is(err, want) || e.Kind != enroll.Transient {
			t.Errorf("%s: %v", stop, err)
		}
		select {
		case <-m.ended:
		case <-time.After(time.Minute):
			t.Fatal("the helper goes on asking")
		}
	}
}

func TestAStreamThatEndsFailsAllThatIsPending(t *testing.T) {
	h, m := open(t, nil), newMemory()
	m.block = make(chan struct{})
	s, end := h.lend("1000", m)
	failed := make(chan error, 3)
	for range cap(failed) {
		go func() { failed <- s.Install(t.Context(), enroll.InstallWanted{}) }()
		<-m.entered
	}
	end()
	for range cap(failed) {
		select {
		case err := <-failed:
			if e := enroll.AsError(err); e.Kind != enroll.Waiting || e.Code != enroll.CodeUserAbsent || e.Hint == "" {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("still pending")
		}
	}
	select {
	case <-h.agent.detached:
	case <-time.After(time.Minute):
		t.Fatal("not detached")
	}
	if err := s.Notify(t.Context(), enroll.Notice{}); enroll.AsError(err).Code != enroll.CodeUserAbsent {
		t.Error(err)
	}
	if _, ok := h.sessions.Session("uid:1000"); ok || len(h.sessions.Present()) != 0 {
		t.Error("still present")
	}
}

func TestTheNewestSessionServes(t *testing.T) {
	h := open(t, nil)
	first, endFirst := h.lend("1000", newMemory())
	second, endSecond := h.lend("1000", newMemory())
	serving := func() enroll.Session {
		s, _ := h.sessions.Session("uid:1000")
		return s
	}
	if serving() != second || len(h.sessions.Present()) != 1 {
		t.Error("the newest does not serve")
	}
	if err := first.Notify(t.Context(), enroll.Notice{}); err != nil {
		t.Error("the spare is dead: ", err)
	}
	endSecond()
	<-h.agent.detached
	if serving() != first {
		t.Error("the spare does not take over")
	}
	endFirst()
	<-h.agent.detached
	if serving() != nil {
		t.Error("somebody is there")
	}
	if _, ok := h.sessions.Session("uid:1001"); ok {
		t.Error("another user's session")
	}
}

func TestOneUserLendsSoMany(t *testing.T) {
	h := open(t, nil)
	for range 4 {
		_, end := h.lend("1000", newMemory())
		defer end()
	}
	err := h.client("1000").Attach(t.Context(), Lending{Session: newMemory()})
	if reasonOf(err) != ReasonTooMany {
		t.Error(err)
	}
	_, end := h.lend("1001", newMemory())
	end()
}

func TestAPanicInATaskIsAFailure(t *testing.T) {
	h, m := open(t, nil), newMemory()
	m.broken = true
	s, end := h.lend("1000", m)
	defer end()
	err := s.Install(t.Context(), enroll.InstallWanted{})
	if e := enroll.AsError(err); e.Code != enroll.CodeInternal || e.Kind != enroll.Transient {
		t.Error(err)
	}
	m.mu.Lock()
	m.broken = false
	m.mu.Unlock()
	if err := s.Install(t.Context(), enroll.InstallWanted{}); err != nil {
		t.Error("the helper is dead: ", err)
	}
}

func TestChangesAreHeardButNotTooOften(t *testing.T) {
	h := open(t, nil)
	changed := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	c := h.client("1000")
	go func() { ended <- c.Attach(ctx, Lending{Session: newMemory(), Changed: changed}) }()
	<-h.agent.attached
	for range 50 {
		changed <- struct{}{}
	}
	select {
	case a := <-h.agent.changed:
		if a.Peer.User != "uid:1000" {
			t.Error(a.Peer)
		}
	case <-time.After(time.Minute):
		t.Fatal("not heard")
	}
	time.Sleep(200 * time.Millisecond)
	if len(h.agent.changed) != 0 {
		t.Error("heard too often")
	}
	cancel()
	<-ended
}

// rawStream speaks as a helper that keeps no rules.
func rawStream(t *testing.T, h *house) localv1.AgentService_AttachClient {
	t.Helper()
	stream, err := h.client("1000").api.Attach(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func TestAHelperIntroducesItself(t *testing.T) {
	h := open(t, func(s *Server) { s.Limits.Handshake = 200 * time.Millisecond })
	rude := rawStream(t, h)
	if err := rude.Send(&localv1.AttachRequest{Message: &localv1.AttachRequest_Changed{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := rude.Recv(); reasonOf(fromStatus(err)) != ReasonInvalid {
		t.Error(err)
	}
	if _, err := rawStream(t, h).Recv(); reasonOf(fromStatus(err)) != ReasonInvalid {
		t.Error("silence: ", err)
	}
	if len(h.agent.attached) != 0 {
		t.Error("attached")
	}
}

func TestOddAnswersAreErrors(t *testing.T) {
	h := open(t, nil)
	stream := rawStream(t, h)
	hello := &localv1.AttachRequest{Message: &localv1.AttachRequest_Hello{Hello: &localv1.Hello{Version: "x\x1b[2Jy", Locale: strings.Repeat("a", 9000)}}}
	if err := stream.Send(hello); err != nil {
		t.Fatal(err)
	}
	a := <-h.agent.attached
	if a.Hello.Version != "x[2Jy" || len(a.Hello.Locale) != sentence {
		t.Errorf("hello %q, %d", a.Hello.Version, len(a.Hello.Locale))
	}
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			id := m.GetTask().GetId()
			for _, r := range []*localv1.TaskResult{
				nil, {TaskId: id + 77}, {TaskId: id, What: &localv1.TaskResult_Ask{}}, {TaskId: id}, {TaskId: id},
			} {
				_ = stream.Send(&localv1.AttachRequest{Message: &localv1.AttachRequest_Result{Result: r}})
			}
		}
	}()
	for _, c := range exchanges {
		if c.name == "discard" || c.name == "notify" {
			continue // they have no result
		}
		if _, err := c.call(t.Context(), a.Session); enroll.AsError(err).Code != enroll.CodeInternal {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestAHelperThatReadsNothingIsLetGo(t *testing.T) {
	h := open(t, nil)
	stream := rawStream(t, h)
	if err := stream.Send(&localv1.AttachRequest{Message: &localv1.AttachRequest_Hello{Hello: &localv1.Hello{}}}); err != nil {
		t.Fatal(err)
	}
	a := <-h.agent.attached
	big := enroll.InstallWanted{Chain: [][]byte{make([]byte, 1<<18)}}
	var all sync.WaitGroup
	for range 2 * queueLimit {
		all.Go(func() {
			if err := a.Session.Install(t.Context(), big); enroll.AsError(err).Code != enroll.CodeUserAbsent {
				t.Error(err)
			}
		})
	}
	all.Wait()
	select {
	case <-h.agent.detached:
	case <-time.After(time.Minute):
		t.Error("still attached")
	}
}
