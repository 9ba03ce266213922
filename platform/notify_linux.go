package platform

import (
	"context"
	"errors"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"
)

// notifier asks and tells by desktop notifications (freedesktop.org, Desktop
// Notifications Specification 1.2).
type notifier struct{}

const (
	notifyName = "org.freedesktop.Notifications"
	notifyPath = dbus.ObjectPath("/org/freedesktop/Notifications")
)

// Urgencies of the specification.
const (
	urgencyNormal   byte = 1
	urgencyCritical byte = 2 // stays until it is answered
)

// Expiries of the specification, in milliseconds.
const (
	expireByServer int32 = -1
	expireNever    int32 = 0
)

// notifyPatience bounds each call to the notification service; it answers in
// milliseconds, or hangs.
const notifyPatience = 5 * time.Second

// notifyServer is the notification service of the session bus.
type notifyServer struct {
	conn   *dbus.Conn
	object dbus.BusObject
	// owner is the service's connection: a signal of anybody else proves nothing.
	owner string
	can   []string
}

func (notifier) Ask(ctx context.Context, q Question) (Answer, error) {
	s, err := dialNotifications(ctx)
	if err != nil {
		return "", err
	}
	answer, err := s.ask(ctx, q)
	return answer, errors.Join(err, s.conn.Close())
}

func (notifier) Enter(context.Context, Entry) (string, error) {
	return "", unsupported("a notification has no field to write into", nil)
}

func (notifier) Notify(ctx context.Context, n Notice) error {
	s, err := dialNotifications(ctx)
	if err != nil {
		return err
	}
	_, err = s.show(ctx, n, nil, urgencyNormal, expireByServer)
	return errors.Join(err, s.conn.Close())
}

func (s *notifyServer) ask(ctx context.Context, q Question) (Answer, error) {
	if !slices.Contains(s.can, "actions") {
		return "", unsupported("the notification service shows no buttons", nil)
	}
	signals, err := s.watch(ctx)
	if err != nil {
		return "", err
	}
	id, err := s.show(ctx, Notice{q.Title, q.Text}, actions(q), urgencyCritical, expireNever)
	if err != nil {
		return "", err
	}
	for {
		select {
		case <-ctx.Done():
			return "", errors.Join(context.Cause(ctx), s.withdraw(context.WithoutCancel(ctx), id))
		case signal, open := <-signals:
			if !open {
				return "", unsupported("the session bus is gone", nil)
			}
			if answer, done, err := s.read(signal, id, q); done {
				return answer, err
			}
		}
	}
}

// actions are key and label in turn; the key is the answer.
func actions(q Question) []string {
	var list []string
	for _, a := range offered(q) {
		list = append(list, string(a.answer), plainLine(a.label))
	}
	return list
}

// read says whether a signal ends the question, and how.
func (s *notifyServer) read(signal *dbus.Signal, id uint32, q Question) (Answer, bool, error) {
	if signal.Name == "org.freedesktop.DBus.NameOwnerChanged" && signal.Sender == "org.freedesktop.DBus" {
		return "", true, unsupported("the notification service is gone", nil)
	}
	if signal.Sender != s.owner || len(signal.Body) != 2 || signal.Body[0] != id {
		return "", false, nil
	}
	switch signal.Name {
	case notifyName + ".ActionInvoked":
		key, _ := signal.Body[1].(string)
		for _, a := range offered(q) {
			if string(a.answer) == key {
				return a.answer, true, nil
			}
		}
		return AnswerLater, true, nil
	case notifyName + ".NotificationClosed":
		return AnswerLater, true, nil
	}
	return "", false, nil
}

func (s *notifyServer) watch(ctx context.Context) (<-chan *dbus.Signal, error) {
	ctx, stop := context.WithTimeout(ctx, notifyPatience)
	defer stop()
	signals := make(chan *dbus.Signal, 16)
	s.conn.Signal(signals)
	for _, match := range [][]dbus.MatchOption{
		{dbus.WithMatchSender(s.owner), dbus.WithMatchInterface(notifyName)},
		{dbus.WithMatchSender("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, notifyName)},
	} {
		if err := s.conn.AddMatchSignalContext(ctx, match...); err != nil {
			return nil, unsupported("watch the notification service", err)
		}
	}
	return signals, nil
}

func (s *notifyServer) show(ctx context.Context, n Notice, actions []string, urgency byte, expire int32) (uint32, error) {
	body := plain(n.Text)
	if slices.Contains(s.can, "body-markup") {
		body = html.EscapeString(body)
	}
	if actions == nil {
		actions = []string{} // the signature wants an array
	}
	hints := map[string]dbus.Variant{"urgency": dbus.MakeVariant(urgency)}
	var id uint32
	err := s.call(ctx, "Notify", "smime-agent", uint32(0), "", plainLine(n.Title), body, actions, hints, expire).Store(&id)
	if err != nil {
		return 0, unsupported("show a notification", err)
	}
	return id, nil
}

func (s *notifyServer) withdraw(ctx context.Context, id uint32) error {
	return s.call(ctx, "CloseNotification", id).Err
}

func (s *notifyServer) call(ctx context.Context, method string, args ...any) *dbus.Call {
	ctx, stop := context.WithTimeout(ctx, notifyPatience)
	defer stop()
	return s.object.CallWithContext(ctx, notifyName+"."+method, 0, args...)
}

func dialNotifications(ctx context.Context) (*notifyServer, error) {
	address, err := sessionBus()
	if err != nil {
		return nil, err
	}
	conn, err := dbus.Connect(address)
	if err != nil {
		return nil, unsupported("no session bus", err)
	}
	s := &notifyServer{conn: conn, object: conn.Object(notifyName, notifyPath)}
	// This first call starts the service, if the bus knows how.
	if err := s.call(ctx, "GetCapabilities").Store(&s.can); err != nil {
		return nil, errors.Join(unsupported("no notification service", err), conn.Close())
	}
	ctx, stop := context.WithTimeout(ctx, notifyPatience)
	defer stop()
	err = conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetNameOwner", 0, notifyName).Store(&s.owner)
	if err != nil {
		return nil, errors.Join(unsupported("no notification service", err), conn.Close())
	}
	return s, nil
}

// sessionBus finds the bus as libdbus does, but never starts one: nobody would
// be on it.
func sessionBus() (string, error) {
	if address := os.Getenv("DBUS_SESSION_BUS_ADDRESS"); address != "" {
		return address, nil
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		path := filepath.Join(dir, "bus")
		if _, err := os.Stat(path); err == nil { //nolint:gosec // the environment is the person's own
			return fmt.Sprintf("unix:path=%s", path), nil
		}
	}
	return "", unsupported("this session has no bus", nil)
}
