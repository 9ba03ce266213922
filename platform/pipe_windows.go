package platform

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"

	"smime-agent/platform/internal/win32"
)

const pipePrefix = `\\.\pipe\`

// pipeRights are reading and writing without FILE_APPEND_DATA, which on a pipe is
// the right to make further server ends: GENERIC_WRITE contains it (Microsoft
// Learn, "Named Pipe Security and Access Rights").
const pipeRights = 0x12019b

// pipeBuffer is what the system may hold for each direction, in bytes.
const pipeBuffer = 64 << 10

// pipeSecurity lets the machine's users, who are logged on here, talk to the
// system's service, and lets nobody else be it. What denies comes first, because
// entries are judged in order. A service of one user is for that user.
func (a account) pipeSecurity() string {
	if a.system() {
		return "O:SYG:SYD:P(D;;GA;;;NU)(A;;GA;;;SY)(A;;0x12019b;;;BA)(A;;0x12019b;;;IU)"
	}
	return "O:" + a.sid + "D:P(A;;GA;;;" + a.sid + ")(A;;GA;;;SY)"
}

func checkAddress(address string) error {
	name, ok := strings.CutPrefix(address, pipePrefix)
	if !ok || name == "" || len(address) > 256 || strings.ContainsAny(name, "\\/\x00") {
		return fmt.Errorf("%w: address %q is no name of a pipe (%sNAME)", ErrUnsupported, address, pipePrefix)
	}
	return nil
}

// listen makes the pipe's first instance. go-winio asks for a new pipe and
// rejects clients of other machines, so that a name that is taken is an error.
func listen(address string) (net.Listener, error) {
	if err := checkAddress(address); err != nil {
		return nil, err
	}
	me, err := self()
	if err != nil {
		return nil, err
	}
	if err := me.awaitVacancy(address); err != nil {
		return nil, fmt.Errorf("listen at %s: %w", address, err)
	}
	p, err := me.reserve(address)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", address, err)
	}
	go p.accept()
	return p, nil
}

// patience bounds the waiting for clients, of the service that was here before
// or who are too fast.
const patience = 5 * time.Second

// awaitVacancy lets the clients of a service that has ended, or was killed, find
// that out: until they close their ends the name stays taken, with nobody there.
func (a account) awaitVacancy(address string) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := a.vacant(address)
		if !errors.Is(err, windows.ERROR_PIPE_BUSY) || time.Now().After(deadline) {
			return err
		}
	}
}

// reserve takes the name. Under Wine a client who is faster than
// [pipeListener.plug] is thrown out by giving the name back, or he would wait for
// an answer that nobody gives.
func (a account) reserve(address string) (*pipeListener, error) {
	for deadline := time.Now().Add(patience); ; {
		l, err := winio.ListenPipe(address, &winio.PipeConfig{
			SecurityDescriptor: a.pipeSecurity(), InputBufferSize: pipeBuffer, OutputBufferSize: pipeBuffer,
		})
		if err != nil { // somebody was faster, or the name is refused
			return nil, cmp.Or(a.vacant(address), denied(err))
		}
		p := &pipeListener{Listener: l, clients: make(chan net.Conn), ended: make(chan struct{})}
		plugged := p.plug(address)
		if plugged == nil {
			return p, nil
		}
		err = errors.Join(plugged, l.Close())
		if !errors.Is(plugged, errTaken) || time.Now().After(deadline) {
			return nil, err
		}
	}
}

// vacant says that nobody has the pipe, or who has it: that is what tells a
// second service from an impostor. It is asked before the name is taken too,
// because Wine 8 gives a name that is taken a second time.
func (a account) vacant(address string) error {
	name, err := windows.UTF16PtrFromString(address)
	if err != nil {
		return err
	}
	h, err := windows.CreateFile(name, windows.READ_CONTROL, 0, nil, windows.OPEN_EXISTING,
		windows.SECURITY_SQOS_PRESENT|windows.SECURITY_ANONYMOUS, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("%w: somebody holds the pipe: %w", ErrExists, err)
	}
	defer func() { _ = windows.CloseHandle(h) }()
	owner := "somebody"
	if sec, err := a.inspect(h, windows.SE_FILE_OBJECT); err == nil {
		owner = sec.owner
	}
	return fmt.Errorf("%w: %s holds the pipe", ErrExists, owner)
}

// pipeListener always has a server end ready: unlike a socket, a pipe takes
// clients only while somebody accepts.
type pipeListener struct {
	net.Listener
	first   net.Conn
	clients chan net.Conn
	// ended is closed after failed was set.
	ended  chan struct{}
	failed error
	once   sync.Once
}

// errTaken says that a client has the instance that only reserves the name.
var errTaken = errors.New("a client holds the pipe's first instance")

// plug takes the reserving first instance of go-winio out of clients' way: Wine
// lets a client connect to it, who then waits for ever; Windows does not.
func (l *pipeListener) plug(address string) error {
	if !win32.Wine() {
		return nil
	}
	// go-winio tries again while the pipe is busy, and this instance stays so.
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	var err error
	l.first, err = winio.DialPipeAccessImpLevel(ctx, address, pipeRights, winio.PipeImpLevelIdentification)
	if errors.Is(err, context.DeadlineExceeded) {
		return errTaken
	}
	return err
}

// Accepting may fail for want of memory, or because of what the client did, and
// is tried again after a pause; so many failures in a row, a minute, are the end.
const (
	acceptPause    = 50 * time.Millisecond
	acceptFailures = 1200
)

func (l *pipeListener) accept() {
	for failures := 0; ; {
		c, err := l.Listener.Accept()
		if err != nil {
			if failures++; errors.Is(err, net.ErrClosed) || failures >= acceptFailures {
				l.end(err)
				return
			}
			time.Sleep(acceptPause)
			continue
		}
		failures = 0
		select {
		case l.clients <- pipeEnd{Conn: c, server: true}:
		case <-l.ended:
			_ = c.Close()
		}
	}
}

func (l *pipeListener) end(err error) {
	l.once.Do(func() {
		l.failed = err
		close(l.ended)
	})
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.clients:
		return c, nil
	case <-l.ended:
		return nil, l.failed
	}
}

func (l *pipeListener) Close() error {
	l.end(net.ErrClosed)
	err := l.Listener.Close()
	if l.first != nil {
		err = errors.Join(err, l.first.Close())
	}
	return err
}

// pipeEnd is one end of a pipe, which knows which.
type pipeEnd struct {
	net.Conn
	server bool
}

func (e pipeEnd) handle() (windows.Handle, error) {
	f, ok := e.Conn.(interface{ Fd() uintptr })
	if !ok {
		return 0, fmt.Errorf("%w: a %T has no handle", ErrUnsupported, e.Conn)
	}
	return windows.Handle(f.Fd()), nil
}

// dial connects so that the service may learn who we are and no more
// (identification level), and speaks to nobody but the system's service or our
// own.
func dial(ctx context.Context, address string) (net.Conn, error) {
	if err := checkAddress(address); err != nil {
		return nil, err
	}
	c, err := winio.DialPipeAccessImpLevel(ctx, address, pipeRights, winio.PipeImpLevelIdentification)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("dial %s: %w: no service listens there: %w", address, ErrNotFound, err)
	}
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, denied(err))
	}
	end := pipeEnd{Conn: c}
	if _, err := pipeOwner(end); err != nil {
		return nil, errors.Join(fmt.Errorf("dial %s: %w", address, err), c.Close())
	}
	return end, nil
}

// pipeOwner is who made the pipe, if that is the system or this account. Who
// else may add server ends to it is as telling as the owner.
func pipeOwner(end pipeEnd) (string, error) {
	me, err := self()
	if err != nil {
		return "", err
	}
	h, err := end.handle()
	if err != nil {
		return "", err
	}
	sec, err := me.inspect(h, windows.SE_FILE_OBJECT)
	if err != nil {
		return "", err
	}
	if sec.owner != me.sid && sec.owner != sidSystem {
		return "", fmt.Errorf("%w: the pipe belongs to %s", ErrDenied, sec.owner)
	}
	if sec.others&(mayWrite&^windows.FILE_WRITE_DATA&^windows.FILE_WRITE_ATTRIBUTES) != 0 {
		return "", fmt.Errorf("%w: others can answer at the pipe (rights 0x%x)", ErrDenied, uint32(sec.others))
	}
	return sec.owner, nil
}
