package local

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/platform"
	localv1 "smime-agent/proto/local/v1"
)

// Attachment is a helper's session while it is lent.
type Attachment struct {
	// Peer is who lends it, by the kernel's word.
	Peer platform.Peer
	// Account is his login name, as the system knows it; it may be empty.
	Account string
	Hello   Hello
	Since   time.Time
	// Session does the work; when the helper goes, its calls end with
	// [enroll.CodeUserAbsent].
	Session enroll.Session
}

// Sessions knows who is logged in. There is one session for each logon: the
// newest of a user serves, older ones are spares that serve again when it ends.
// The zero value is ready.
type Sessions struct {
	mu     sync.Mutex
	byUser map[string][]*Attachment
}

// Session finds the newest session of a user; it is [enroll.Sessions].
func (s *Sessions) Session(user string) (enroll.Session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.byUser[user]
	if len(all) == 0 {
		return nil, false
	}
	return all[len(all)-1].Session, true
}

// Present gives the serving session of each user, sorted by user.
func (s *Sessions) Present() []Attachment {
	s.mu.Lock()
	defer s.mu.Unlock()
	present := make([]Attachment, 0, len(s.byUser))
	for _, all := range s.byUser {
		present = append(present, *all[len(all)-1])
	}
	slices.SortFunc(present, func(a, b Attachment) int {
		switch {
		case a.Peer.User < b.Peer.User:
			return -1
		case a.Peer.User > b.Peer.User:
			return 1
		}
		return 0
	})
	return present
}

func (s *Sessions) add(a *Attachment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byUser == nil {
		s.byUser = map[string][]*Attachment{}
	}
	s.byUser[a.Peer.User] = append(s.byUser[a.Peer.User], a)
}

func (s *Sessions) remove(a *Attachment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := slices.DeleteFunc(s.byUser[a.Peer.User], func(b *Attachment) bool { return a == b })
	if len(left) == 0 {
		delete(s.byUser, a.Peer.User)
		return
	}
	s.byUser[a.Peer.User] = left
}

// How long a task may take if its caller sets no earlier end. Keys in a smart
// card take tens of seconds, and a person may have to type a PIN.
const (
	keyLimit    = 10 * time.Minute
	storeLimit  = 5 * time.Minute
	noticeLimit = time.Minute
	askLimit    = 24 * time.Hour
)

// queueLimit is how many messages may wait for a helper before it counts as gone.
const queueLimit = 128

// remote is a helper's session as the engine sees it.
type remote struct {
	locale string
	out    chan *localv1.AttachResponse
	done   chan struct{}
	ended  sync.Once

	mu      sync.Mutex
	last    uint64
	pending map[uint64]chan *localv1.TaskResult
}

func newRemote(locale string) *remote {
	return &remote{
		locale: locale, out: make(chan *localv1.AttachResponse, queueLimit),
		done: make(chan struct{}), pending: map[uint64]chan *localv1.TaskResult{},
	}
}

// end fails all that is pending and all that comes.
func (r *remote) end() { r.ended.Do(func() { close(r.done) }) }

func absent() error {
	return &enroll.Error{
		Kind: enroll.Waiting, Code: enroll.CodeUserAbsent,
		Hint: "The user's session has ended. It goes on at the next login.",
	}
}

// send queues a message; a helper that reads nothing is let go.
func (r *remote) send(m *localv1.AttachResponse) bool {
	select {
	case <-r.done:
		return false
	default:
	}
	select {
	case r.out <- m:
		return true
	default:
		r.end()
		return false
	}
}

// call gives the helper a task and waits for its result.
func (r *remote) call(ctx context.Context, limit time.Duration, task *localv1.Task) (*localv1.TaskResult, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return nil, interrupted(task, err)
	}
	answer := make(chan *localv1.TaskResult, 1)
	task.Id = r.expect(answer)
	defer r.forget(task.Id)
	if !r.send(&localv1.AttachResponse{Message: &localv1.AttachResponse_Task{Task: task}}) {
		return nil, absent()
	}
	select {
	case result := <-answer:
		if f := result.GetFailure(); f != nil {
			return nil, toError(f)
		}
		return result, nil
	case <-r.done:
		return nil, absent()
	case <-ctx.Done():
		r.send(&localv1.AttachResponse{Message: &localv1.AttachResponse_Cancel{Cancel: &localv1.Cancel{TaskId: task.Id}}})
		return nil, interrupted(task, ctx.Err())
	}
}

func (r *remote) expect(answer chan *localv1.TaskResult) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	r.pending[r.last] = answer
	return r.last
}

func (r *remote) forget(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pending, id)
}

// deliver hands a result to whoever waits for it. Results that nobody awaits,
// or no longer, or for the second time, are dropped.
func (r *remote) deliver(result *localv1.TaskResult) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if answer, ok := r.pending[result.GetTaskId()]; ok {
		delete(r.pending, result.GetTaskId())
		answer <- result // has room for one
	}
}

// interrupted says what an unfinished task means: what has to do with keys or
// certificates waits for a store, all else for a person or his helper.
func interrupted(task *localv1.Task, err error) error {
	e := &enroll.Error{Kind: enroll.Transient, Code: enroll.CodeInternal, Err: err}
	if !errors.Is(err, context.DeadlineExceeded) {
		return e
	}
	switch task.GetWhat().(type) {
	case *localv1.Task_Ask, *localv1.Task_Notify:
		e.Hint = "The user's session did not answer in time. The agent tries again by itself."
	default:
		e.Code = enroll.CodeStoreHangs
		e.Hint = "The user's certificate store did not answer in time. The agent tries again by itself."
	}
	return e
}

// MakeRequest is [enroll.Keeper]'s.
func (r *remote) MakeRequest(ctx context.Context, w enroll.RequestWanted) (enroll.RequestMade, error) {
	result, err := r.call(ctx, keyLimit, requestTask(w))
	if err != nil {
		return enroll.RequestMade{}, err
	}
	made := result.GetRequest()
	if made == nil || len(made.GetCsr()) == 0 {
		return enroll.RequestMade{}, odd()
	}
	return enroll.RequestMade{
		CSR: made.GetCsr(), Algorithm: plain(made.GetAlgorithm()), Protection: plain(made.GetProtection()),
	}, nil
}

// Install is [enroll.Keeper]'s.
func (r *remote) Install(ctx context.Context, w enroll.InstallWanted) error {
	result, err := r.call(ctx, storeLimit, installTask(w))
	if err == nil && result.GetInstall() == nil {
		return odd()
	}
	return err
}

// Prove is [enroll.Keeper]'s.
func (r *remote) Prove(ctx context.Context, w enroll.ProofWanted) (enroll.Proof, error) {
	result, err := r.call(ctx, storeLimit, proveTask(w))
	if err != nil {
		return enroll.Proof{}, err
	}
	if result.GetProve() == nil {
		return enroll.Proof{}, odd()
	}
	return toProof(result.GetProve()), nil
}

// Inventory is [enroll.Warden]'s.
func (r *remote) Inventory(ctx context.Context, modules []enroll.Module) (enroll.Inventory, error) {
	result, err := r.call(ctx, storeLimit, inventoryTask(modules))
	if err != nil {
		return enroll.Inventory{}, err
	}
	if result.GetInventory() == nil {
		return enroll.Inventory{}, odd()
	}
	return toInventory(result.GetInventory()), nil
}

// Discard is [enroll.Warden]'s.
func (r *remote) Discard(ctx context.Context, store string, id enroll.ID, modules []enroll.Module) error {
	_, err := r.call(ctx, storeLimit, discardTask(store, id, modules))
	return err
}

// Ask is [enroll.Person]'s.
func (r *remote) Ask(ctx context.Context, q enroll.Question) (enroll.Verdict, error) {
	result, err := r.call(ctx, askLimit, askTask(q, r.locale))
	if err != nil {
		return "", err
	}
	switch v := enroll.Verdict(result.GetAsk().GetVerdict()); v {
	case enroll.Approve, enroll.Later, enroll.Decline:
		return v, nil
	default:
		return "", odd()
	}
}

// EnterCode is [enroll.Person]'s.
func (r *remote) EnterCode(ctx context.Context, q enroll.CodeQuestion) (string, error) {
	result, err := r.call(ctx, askLimit, codeTask(q))
	if err != nil {
		return "", err
	}
	if result.GetCode() == nil || len(result.GetCode().GetCode()) > codeLimit {
		return "", odd()
	}
	return result.GetCode().GetCode(), nil
}

// Notify is [enroll.Person]'s.
func (r *remote) Notify(ctx context.Context, n enroll.Notice) error {
	_, err := r.call(ctx, noticeLimit, notifyTask(n))
	return err
}
