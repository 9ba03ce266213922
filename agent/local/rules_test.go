package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	localv1 "smime-agent/proto/local/v1"
)

func TestEveryMethodHasARule(t *testing.T) {
	desc := localv1.AgentService_ServiceDesc
	n := 0
	for _, m := range desc.Methods {
		n++
		if _, ok := rules["/"+desc.ServiceName+"/"+m.MethodName]; !ok {
			t.Error(m.MethodName)
		}
	}
	for _, m := range desc.Streams {
		n++
		if _, ok := rules["/"+desc.ServiceName+"/"+m.StreamName]; !ok {
			t.Error(m.StreamName)
		}
	}
	if n != len(rules) {
		t.Errorf("%d methods, %d rules", n, len(rules))
	}
}

const own1, own2, other1, other2 = "smime-a1", "smime-a2", "smime-b1", "smime-b2"

// moves has each moving method for the owner, another and an administrator.
var moves = []struct {
	caller, method, target string
	want                   []string
	reason                 Reason
}{
	{"1000", "decide", own1, []string{own1}, ""},
	{"1000", "decide", "ann@corp.example", []string{own1}, ""},
	{"1000", "decide", "alias.ann@corp.example", []string{own1}, ""},
	{"1000", "decide", "", []string{own1}, ""},
	{"1000", "decide", All, []string{own1}, ""},
	{"1000", "decide", other1, nil, ReasonNotFound},
	{"1000", "decide", "bob@corp.example", nil, ReasonNotFound},
	{"1000", "decide", "nobody@corp.example", nil, ReasonNotFound},
	{"1000", "decide", own2, nil, ReasonWrongState},
	{"1002", "decide", "", nil, ReasonNothing},
	{"1002", "decide", All, nil, ReasonNothing},
	{"0", "decide", other1, []string{other1}, ""},
	{"0", "decide", "bob@corp.example", []string{other1}, ""},
	{"0", "decide", "", nil, ReasonNothing},
	{"0", "decide", All, []string{own1, other1}, ""},
	{"1000", "renew", own2, []string{own2}, ""},
	{"1000", "renew", "", []string{own2}, ""},
	{"1000", "renew", other2, nil, ReasonNotFound},
	{"1000", "renew", own1, nil, ReasonWrongState},
	{"0", "renew", other2, []string{other2}, ""},
	{"0", "renew", All, []string{own2, other2}, ""},
	{"1000", "confirm", own2, nil, ReasonWrongState}, // nothing of it waits for a code
	{"1000", "confirm", other2, nil, ReasonNotFound},
	{"1000", "prove", own2, []string{own2}, ""},
	{"1000", "prove", "", []string{own2, "smime-a3"}, ""},
	{"1000", "prove", other2, nil, ReasonNotFound},
	{"0", "prove", other2, []string{other2}, ""},
	{"1000", "prove", strings.Repeat("x", 321), nil, ReasonInvalid},
}

func TestWhoMayMoveWhat(t *testing.T) {
	h := open(t, func(s *Server) { s.Limits.Burst = 1000 })
	for _, c := range moves {
		t.Run(c.caller+" "+c.method+" "+c.target, func(t *testing.T) {
			client := h.client(c.caller)
			call := map[string]func(context.Context, string) ([]enroll.ID, error){
				"renew": client.Renew, "prove": client.Prove,
				"confirm": func(ctx context.Context, target string) ([]enroll.ID, error) {
					return client.Confirm(ctx, target, "AAAA-BBBB")
				},
				"decide": func(ctx context.Context, target string) ([]enroll.ID, error) {
					return client.Decide(ctx, target, enroll.Approve)
				},
			}[c.method]
			moved, err := call(t.Context(), c.target)
			if reasonOf(err) != c.reason || (c.reason == "" && err != nil) {
				t.Fatalf("error %v, want %q", err, c.reason)
			}
			verb := strings.Replace(c.method, "decide", "approve", 1)
			var want []string
			for i, id := range c.want {
				if moved[i] != enroll.ID(id) {
					t.Errorf("moved %v", moved)
				}
				want = append(want, "uid:"+c.caller+" "+verb+" "+id)
			}
			if got := h.agent.take(); !slices.Equal(got, want) {
				t.Errorf("the service was told %v, want %v", got, want)
			}
		})
	}
}

func TestWhoMaySeeWhat(t *testing.T) {
	h := open(t, nil)
	for uid, want := range map[string]int{"1000": 3, "1001": 2, "1002": 0, "0": 5} {
		client := h.client(uid)
		r, err := client.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var watched status.Report
		err = client.Watch(t.Context(), func(r status.Report) error {
			watched = r
			return errStop
		})
		if !errors.Is(err, errStop) {
			t.Fatal(err)
		}
		for _, r := range []status.Report{r, watched} {
			if len(r.Credentials) != want {
				t.Errorf("%s sees %d credentials, want %d", uid, len(r.Credentials), want)
			}
			raw, _ := json.Marshal(r)
			if uid != "0" && uid != "1001" && bytes.Contains(raw, []byte("bob")) {
				t.Errorf("%s sees %s", uid, raw)
			}
		}
		settings, err := client.Settings(t.Context())
		if err != nil || len(settings.Settings) != 3 || settings.Settings[1].Value == "geheim" || settings.Settings[0].Value == "" {
			t.Fatalf("%s: settings %+v, %v", uid, settings, err)
		}
		if private := settings.Settings[2]; (private.Value == "svc") != (uid == "0") || (private.Problem == "") != (uid != "0") {
			t.Errorf("%s sees %+v", uid, private)
		}
		if checks, err := client.Diagnose(t.Context()); err != nil || len(checks.Checks) != 1 {
			t.Errorf("%s: %+v, %v", uid, checks, err)
		}
		if err := client.Sync(t.Context()); err != nil {
			t.Errorf("%s: %v", uid, err)
		}
	}
}

var errStop = errors.New("stop")

func TestWhomTheKernelDoesNotKnowGetsNothing(t *testing.T) {
	h := open(t, func(s *Server) { s.PeerOf = nobody })
	c := h.client("1000")
	if _, err := c.Status(t.Context()); err == nil {
		t.Error("answered")
	}
}

func TestUnknownMethodsAndVerdictsAreRefused(t *testing.T) {
	h := open(t, nil)
	c := h.client("0")
	err := c.conn.Invoke(t.Context(), "/local.v1.AgentService/Shutdown", &localv1.SyncRequest{}, &localv1.SyncResponse{})
	if grpcstatus.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
	if _, err := c.Decide(t.Context(), "smime-a1", "burn"); reasonOf(err) != ReasonInvalid {
		t.Error(err)
	}
	// The guard behind the tap refuses by itself.
	s := (&Server{Agent: h.agent}).service()
	if _, err := s.enter(t.Context(), localv1.AgentService_Status_FullMethodName); grpcstatus.Code(err) != codes.Unauthenticated {
		t.Error(err)
	}
	if _, err := s.unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/x/y"}, nil); err == nil {
		t.Error("no guard")
	}
}

func TestErrorsReachTheCallerWithoutTheirSecrets(t *testing.T) {
	h := open(t, nil)
	c := h.client("0")
	cases := []struct {
		err    error
		reason Reason
		text   string
	}{
		{errors.New("dial 10.0.0.1 with token geheim"), ReasonInternal, ""},
		{&Error{Reason: ReasonDenied, Text: "No.", Err: errors.New("geheim")}, ReasonDenied, "No."},
		{&enroll.Error{Kind: enroll.Waiting, Code: enroll.CodeStoreLocked, Hint: "Unlock it.", Err: errors.New("geheim")}, ReasonHint, "Unlock it."},
		{&enroll.Error{Kind: enroll.Waiting, Code: enroll.CodeStoreLocked, Err: errors.New("geheim")}, ReasonInternal, ""},
		// What central management answered is a status too.
		{&enroll.Error{Kind: enroll.Waiting, Code: enroll.CodeChallengePending, Hint: "Another one.", Err: grpcstatus.Error(codes.InvalidArgument, "geheim")}, ReasonHint, "Another one."},
		{fmt.Errorf("sync: %w", &enroll.Error{Code: enroll.CodeInternal, Err: grpcstatus.Error(codes.Unavailable, "geheim")}), ReasonInternal, ""},
	}
	for _, want := range cases {
		h.agent.mu.Lock()
		h.agent.err = want.err
		h.agent.mu.Unlock()
		_, err := c.Status(t.Context())
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Reason != want.reason || e.Text != want.text || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%v: got %v", want.err, err)
		}
	}
}

func TestAPanicEndsTheCallOnly(t *testing.T) {
	h := open(t, nil)
	c := h.client("0")
	h.agent.change(func(*status.Report) { h.agent.broken = true })
	if _, err := c.Status(t.Context()); reasonOf(err) != ReasonInternal {
		t.Error(err)
	}
	h.agent.change(func(*status.Report) { h.agent.broken = false })
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWatchSendsChangesOnce(t *testing.T) {
	h := open(t, nil)
	c := h.client("1000")
	seen := make(chan status.Report, 16)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- c.Watch(ctx, func(r status.Report) error { seen <- r; return nil })
	}()
	<-seen
	h.agent.change(func(r *status.Report) { r.At = r.At.Add(time.Hour) }) // nothing to tell
	h.agent.change(func(r *status.Report) {
		r.Credentials = slices.Clone(r.Credentials)
		r.Credentials[3].State = enroll.Consented // another's
	})
	time.Sleep(3 * watchPause)
	h.agent.change(func(r *status.Report) {
		r.Credentials = slices.Clone(r.Credentials)
		r.Credentials[0].State = enroll.Consented
	})
	select {
	case r := <-seen:
		if !slices.ContainsFunc(r.Credentials, func(c status.Credential) bool { return c.State == enroll.Consented }) {
			t.Error("not the change that the caller may see")
		}
	case <-time.After(time.Minute):
		t.Error("no change seen")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(seen) != 0 {
		t.Error("more than the change")
	}
}

func TestNobodyHome(t *testing.T) {
	_, err := Dialer{Address: t.TempDir() + "/none.sock", Dial: (&house{dir: t.TempDir()}).dialer("1000").Dial}.Connect(t.Context())
	if reasonOf(err) != ReasonNotRunning {
		t.Error(err)
	}
	h := open(t, nil)
	c := h.client("1000")
	if _, err := c.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.stop()
	if _, err := c.Status(t.Context()); reasonOf(err) != ReasonNotRunning {
		t.Error(err)
	}
}
