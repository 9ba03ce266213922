package platform_test

import (
	"bufio"
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"smime-agent/platform"
)

const (
	notifications     = "org.freedesktop.Notifications"
	notificationsPath = dbus.ObjectPath("/org/freedesktop/Notifications")
)

// shownNotice is one call of Notify as the desktop got it.
type shownNotice struct {
	id            uint32
	app           string
	summary, body string
	actions       []string
	urgency       byte
	expire        int32
}

// desktop is a notification service on a real bus.
type desktop struct {
	conn   *dbus.Conn
	can    []string
	shown  chan shownNotice
	closed chan uint32
	lastID uint32
}

func (d *desktop) GetCapabilities() ([]string, *dbus.Error) { return d.can, nil }

func (d *desktop) Notify(app string, _ uint32, _, summary, body string, actions []string, hints map[string]dbus.Variant, expire int32) (uint32, *dbus.Error) {
	d.lastID++
	urgency, _ := hints["urgency"].Value().(byte)
	d.shown <- shownNotice{d.lastID, app, summary, body, actions, urgency, expire}
	return d.lastID, nil
}

func (d *desktop) CloseNotification(id uint32) *dbus.Error {
	d.closed <- id
	return nil
}

// bus starts a session bus and makes it this process's.
func bus(t *testing.T) (address string) {
	t.Helper()
	needProgram(t, "dbus-daemon")
	noSession(t)
	cmd := exec.Command("dbus-daemon", "--session", "--nofork", "--print-address=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	address, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address = strings.TrimSpace(address)
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", address)
	return address
}

func newDesktop(t *testing.T, can ...string) *desktop {
	t.Helper()
	conn := onBus(t, bus(t))
	d := &desktop{conn: conn, can: can, shown: make(chan shownNotice, 1), closed: make(chan uint32, 1)}
	if err := conn.Export(d, notificationsPath, notifications); err != nil {
		t.Fatal(err)
	}
	if reply, err := conn.RequestName(notifications, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatal(reply, err)
	}
	return d
}

func onBus(t *testing.T, address string) *dbus.Conn {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func emit(t *testing.T, conn *dbus.Conn, member string, args ...any) {
	t.Helper()
	if err := conn.Emit(notificationsPath, notifications+"."+member, args...); err != nil {
		t.Error(err)
	}
}

func TestNotificationAsk(t *testing.T) {
	d := newDesktop(t, "body", "body-markup", "actions")
	for name, c := range map[string]struct {
		act  func(id uint32)
		want platform.Answer
	}{
		"yes":       {func(id uint32) { emit(t, d.conn, "ActionInvoked", id, "yes") }, platform.AnswerYes},
		"no":        {func(id uint32) { emit(t, d.conn, "ActionInvoked", id, "no") }, platform.AnswerNo},
		"later":     {func(id uint32) { emit(t, d.conn, "ActionInvoked", id, "later") }, platform.AnswerLater},
		"unknown":   {func(id uint32) { emit(t, d.conn, "ActionInvoked", id, "default") }, platform.AnswerLater},
		"dismissed": {func(id uint32) { emit(t, d.conn, "NotificationClosed", id, uint32(2)) }, platform.AnswerLater},
		"another's": {func(id uint32) {
			emit(t, d.conn, "ActionInvoked", id+1, "yes")
			emit(t, d.conn, "ActionInvoked", id, "no")
		}, platform.AnswerNo},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := askWhile(t, question, func() { c.act((<-d.shown).id) })
			if got != c.want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

func TestNotificationText(t *testing.T) {
	for name, c := range map[string]struct {
		can  []string
		body string
	}{
		"markup": {[]string{"actions", "body-markup"}, "Acme sets up &lt;b&gt;anna_b@acme.test&lt;/b&gt; &amp; co.\n贵公司将为您配置加密邮件。\\n"},
		"plain":  {[]string{"actions"}, question.Text},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesktop(t, c.can...)
			var got shownNotice
			_, err := askWhile(t, question, func() {
				got = <-d.shown
				emit(t, d.conn, "ActionInvoked", got.id, "later")
			})
			if err != nil {
				t.Fatal(err)
			}
			if got.body != c.body || got.summary != question.Title || got.app != "smime-agent" {
				t.Errorf("shown: %+v", got)
			}
			want := []string{"yes", question.Yes, "later", question.Later, "no", question.No}
			if strings.Join(got.actions, "|") != strings.Join(want, "|") || got.urgency != 2 || got.expire != 0 {
				t.Errorf("shown: %+v", got)
			}
		})
	}
}

// TestNotificationForged: another program on the bus answers in the desktop's
// name, straight to whoever asks. Only the desktop's own word may count.
func TestNotificationForged(t *testing.T) {
	d := newDesktop(t, "actions")
	forger := onBus(t, busAddress(t))
	got, err := askWhile(t, question, func() {
		id := (<-d.shown).id
		var names []string
		if err := forger.BusObject().Call("org.freedesktop.DBus.ListNames", 0).Store(&names); err != nil {
			t.Error(err)
		}
		for _, name := range names {
			signal := &dbus.Message{Type: dbus.TypeSignal, Headers: map[dbus.HeaderField]dbus.Variant{
				dbus.FieldPath:        dbus.MakeVariant(notificationsPath),
				dbus.FieldInterface:   dbus.MakeVariant(notifications),
				dbus.FieldMember:      dbus.MakeVariant("ActionInvoked"),
				dbus.FieldDestination: dbus.MakeVariant(name),
				dbus.FieldSignature:   dbus.MakeVariant(dbus.SignatureOf(id, "yes")),
			}, Body: []any{id, "yes"}}
			if call := forger.Send(signal, nil); call != nil && call.Err != nil {
				t.Error(call.Err)
			}
		}
		time.Sleep(200 * time.Millisecond)
		emit(t, d.conn, "ActionInvoked", id, "no")
	})
	if got != platform.AnswerNo || err != nil {
		t.Errorf("got %q, %v, want no", got, err)
	}
}

func busAddress(t *testing.T) string {
	t.Helper()
	for _, pair := range exec.Command("true").Environ() {
		if address, ok := strings.CutPrefix(pair, "DBUS_SESSION_BUS_ADDRESS="); ok {
			return address
		}
	}
	t.Fatal("no bus")
	return ""
}

func TestNotificationEnds(t *testing.T) {
	d := newDesktop(t, "actions")
	q := question
	q.Timeout = 200 * time.Millisecond
	if got, err := platform.NewPrompter().Ask(t.Context(), q); got != platform.AnswerLater || err != nil {
		t.Errorf("after its time: %q, %v, want later", got, err)
	}
	if shown, closed := (<-d.shown).id, <-d.closed; shown != closed {
		t.Errorf("notification %d was shown, %d withdrawn", shown, closed)
	}
	ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	if got, err := platform.NewPrompter().Ask(ctx, question); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the caller's time: %q, %v", got, err)
	}
	if shown, closed := (<-d.shown).id, <-d.closed; shown != closed {
		t.Errorf("notification %d was shown, %d withdrawn", shown, closed)
	}
}

func TestNotificationServiceDies(t *testing.T) {
	d := newDesktop(t, "actions")
	got, err := askWhile(t, question, func() {
		<-d.shown
		d.conn.Close()
	})
	if !errors.Is(err, platform.ErrUnsupported) {
		t.Errorf("got %q, %v, want ErrUnsupported", got, err)
	}
}

func TestNotificationWithoutButtons(t *testing.T) {
	newDesktop(t, "body")
	if got, err := platform.NewPrompter().Ask(t.Context(), question); !errors.Is(err, platform.ErrUnsupported) {
		t.Errorf("got %q, %v, want ErrUnsupported", got, err)
	}
}

func TestNotify(t *testing.T) {
	d := newDesktop(t, "body")
	if err := platform.NewPrompter().Notify(t.Context(), platform.Notice{Title: "Signed mail", Text: "Ready & set"}); err != nil {
		t.Fatal(err)
	}
	got := <-d.shown
	if got.summary != "Signed mail" || got.body != "Ready & set" || len(got.actions) != 0 || got.urgency != 1 || got.expire != -1 {
		t.Errorf("shown: %+v", got)
	}
}

func TestNotifyWithoutService(t *testing.T) {
	bus(t)
	if err := platform.NewPrompter().Notify(t.Context(), platform.Notice{Title: "x"}); !errors.Is(err, platform.ErrUnsupported) {
		t.Errorf("got %v, want ErrUnsupported", err)
	}
}
