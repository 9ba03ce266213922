package control

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"smime-agent/agent/enroll"
	controlv1 "smime-agent/proto/control/v1"
)

func TestJoinOnceAndKeepTheIdentity(t *testing.T) {
	s, m := newServer(t), &memory{}
	c := client(t, config(s, m))
	first, err := c.EnsureJoined(t.Context())
	if err != nil || !first.New || first.DeviceID != "device-0" || first.Organization != "Example" {
		t.Fatalf("%+v, %v", first, err)
	}
	cfg := config(s, m) // a restart, with the token forgotten
	cfg.Token = nil
	c = client(t, cfg)
	again, err := c.EnsureJoined(t.Context())
	if err != nil || again.New || again.DeviceID != first.DeviceID {
		t.Fatalf("%+v, %v", again, err)
	}
	if _, err := c.Sync(t.Context(), SyncInput{}); err != nil {
		t.Fatal(err)
	}
	if n := s.count("Join"); n != 1 {
		t.Errorf("%d joins", n)
	}
	if last := s.identity[len(s.identity)-1]; last != "device-0" {
		t.Errorf("Sync as %q", last)
	}
	if len(c.Conditions()) != 0 {
		t.Errorf("conditions = %+v", c.Conditions())
	}
}

// The answer is lost after the server has admitted the machine; a new process
// repeats the question with the same key and gets the same device.
func TestLostJoinAnswerBurnsNothing(t *testing.T) {
	s, m := newServer(t), &memory{}
	for range 3 {
		s.after = func(string) error { return status.Error(codes.Unavailable, "lost") }
		_, err := client(t, config(s, m)).EnsureJoined(t.Context())
		wantError(t, err, enroll.Transient, enroll.CodeControlUnreachable)
	}
	s.after = nil
	j, err := client(t, config(s, m)).EnsureJoined(t.Context())
	if err != nil || j.DeviceID != "device-0" || len(s.devices) != 1 {
		t.Fatalf("%+v, %v; %d devices", j, err, len(s.devices))
	}
}

func TestIdentityThatCannotBeStoredIsNotUsed(t *testing.T) {
	s, m := newServer(t), &memory{}
	broken := errors.New("disk full")
	m.fail = func(op string) error {
		if op == "put" {
			return broken
		}
		return nil
	}
	c := client(t, config(s, m))
	_, err := c.EnsureJoined(t.Context())
	wantError(t, err, enroll.Transient, CodeSecretsFailed)
	if !errors.Is(err, broken) || s.count("Join") != 0 {
		t.Errorf("%v; %d joins with a key that is not stored", err, s.count("Join"))
	}
	// The key can be stored, its certificate cannot: the next try heals it.
	m.fail = func(op string) error {
		if op == "put" && m.puts >= 1 {
			return broken
		}
		return nil
	}
	_, err = c.EnsureJoined(t.Context())
	wantError(t, err, enroll.Transient, CodeSecretsFailed)
	m.fail = nil
	if j, err := c.EnsureJoined(t.Context()); err != nil || j.DeviceID != "device-0" || len(s.devices) != 1 {
		t.Errorf("%+v, %v", j, err)
	}
	if len(c.Conditions()) != 0 {
		t.Errorf("conditions = %+v", c.Conditions())
	}
}

func TestWithoutTokenNothingIsSent(t *testing.T) {
	s := newServer(t)
	cfg := config(s, &memory{})
	cfg.Token = func() string { return "" }
	c := client(t, cfg)
	_, err := c.EnsureJoined(t.Context())
	wantError(t, err, enroll.Waiting, CodeNotJoined)
	if _, err := c.Submit(t.Context(), enroll.Submission{ID: "smime-1", CSR: []byte("x")}); enroll.AsError(err).Kind != enroll.Transient {
		t.Errorf("Submit: %v", err)
	}
	if s.listener.accepted.Load() != 0 {
		t.Error("a connection was made")
	}
	if cs := c.Conditions(); len(cs) != 1 || cs[0].Code != CodeNotJoined || cs[0].Since.IsZero() {
		t.Errorf("conditions = %+v", cs)
	}
}

func TestRefusedTokenThenANewOne(t *testing.T) {
	s := newServer(t)
	cfg := config(s, &memory{})
	token := "stale"
	cfg.Token = func() string { return token }
	c := client(t, cfg)
	_, err := c.EnsureJoined(t.Context())
	wantError(t, err, enroll.Transient, CodeTokenRefused)
	if cs := c.Conditions(); len(cs) != 1 || cs[0].Code != CodeTokenRefused {
		t.Errorf("conditions = %+v", cs)
	}
	token = goodToken
	if _, err := c.EnsureJoined(t.Context()); err != nil {
		t.Error(err)
	}
	if cs := c.Conditions(); len(cs) != 0 {
		t.Errorf("conditions = %+v", cs)
	}
}

func TestClonedMachineDoesNotUseTheIdentity(t *testing.T) {
	s, m := newServer(t), &memory{}
	if _, err := client(t, config(s, m)).EnsureJoined(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg := config(s, m)
	cfg.Facts.MachineIDHash = "machine-b"
	cfg.Token = nil
	c := client(t, cfg)
	_, err := c.EnsureJoined(t.Context())
	wantError(t, err, enroll.Waiting, CodeMachineCloned)
	_, err = c.Sync(t.Context(), SyncInput{})
	wantError(t, err, enroll.Transient, CodeMachineCloned)
	if _, err := c.RenewIdentity(t.Context()); enroll.AsError(err).Code != CodeMachineCloned {
		t.Errorf("RenewIdentity: %v", err)
	}
	if s.count("Sync") != 0 {
		t.Error("the clone spoke as the original")
	}
	cfg.Token = func() string { return goodToken }
	j, err := client(t, cfg).EnsureJoined(t.Context())
	if err != nil || !j.New || j.DeviceID != "device-1" {
		t.Errorf("%+v, %v", j, err)
	}
}

func TestUnreadableIdentity(t *testing.T) {
	s := newServer(t)
	for name, raw := range map[string]string{"empty": "", "garbage": "garbage", "half": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		m := &memory{values: map[string][]byte{SecretName: []byte(raw)}}
		cfg := config(s, m)
		cfg.Token = nil
		_, err := client(t, cfg).EnsureJoined(t.Context())
		wantError(t, err, enroll.Waiting, CodeNotJoined)
		if string(m.values[SecretName]) != raw {
			t.Errorf("%s: it was touched without need", name)
		}
		if _, err := client(t, config(s, m)).EnsureJoined(t.Context()); err != nil {
			t.Errorf("%s: with a token: %v", name, err)
		}
	}
}

func TestRefusedIdentityJoinsAnewIfThereIsAToken(t *testing.T) {
	for _, reason := range []controlv1.Reason{
		controlv1.Reason_REASON_IDENTITY_EXPIRED, controlv1.Reason_REASON_DEVICE_REFUSED, controlv1.Reason_REASON_IDENTITY_REQUIRED,
	} {
		t.Run(reason.String(), func(t *testing.T) {
			s, m := newServer(t), &memory{}
			token := goodToken
			cfg := config(s, m)
			cfg.Token = func() string { return token }
			c := client(t, cfg)
			if _, err := c.EnsureJoined(t.Context()); err != nil {
				t.Fatal(err)
			}
			token = ""
			s.before = func(_ context.Context, method string) error {
				if method == "Sync" {
					return refusal(codes.PermissionDenied, reason)
				}
				return nil
			}
			if _, err := c.Sync(t.Context(), SyncInput{}); err == nil {
				t.Fatal("Sync was not refused")
			}
			// No token: the identity stays, and serves again once it is admitted again.
			if j, err := c.EnsureJoined(t.Context()); err != nil || j.New {
				t.Errorf("%+v, %v", j, err)
			}
			if len(c.Conditions()) != 1 {
				t.Errorf("conditions = %+v", c.Conditions())
			}
			token = goodToken
			j, err := c.EnsureJoined(t.Context())
			if err != nil || !j.New || j.DeviceID != "device-1" {
				t.Errorf("%+v, %v", j, err)
			}
			s.before = nil
			if _, err := c.Sync(t.Context(), SyncInput{}); err != nil || len(c.Conditions()) != 0 {
				t.Errorf("after joining anew: %v, %+v", err, c.Conditions())
			}
		})
	}
}

func TestRenewalAtHalfLife(t *testing.T) {
	s, m := newServer(t), &memory{}
	c := client(t, config(s, m))
	j, err := c.EnsureJoined(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	half := j.NotAfter.Add(-s.life / 2)
	if j.RenewAt.Before(half) || j.RenewAt.After(half.Add(s.life/10)) {
		t.Errorf("renewal at %v of a life to %v", j.RenewAt, j.NotAfter)
	}
	if did, err := c.RenewIdentity(t.Context()); did || err != nil || s.count("RenewIdentity") != 0 {
		t.Errorf("renewed too early: %v, %v", did, err)
	}
	cfg := config(s, m)
	cfg.Now = func() time.Time { return time.Now().Add(15 * time.Hour) }
	c = client(t, cfg)
	s.skew = 15 * time.Hour
	s.after = func(string) error { return status.Error(codes.Unavailable, "lost") }
	if _, err := c.RenewIdentity(t.Context()); err == nil {
		t.Fatal("the answer was not lost")
	}
	pending := string(m.values[SecretName])
	if _, err := c.RenewIdentity(t.Context()); err == nil || string(m.values[SecretName]) != pending {
		t.Error("another key for the same renewal")
	}
	s.after = nil
	if did, err := c.RenewIdentity(t.Context()); !did || err != nil {
		t.Fatalf("%v, %v", did, err)
	}
	if string(m.values[SecretName]) == pending || strings.Contains(string(m.values[SecretName]), "REQUEST") {
		t.Error("the new identity is not stored, or the request is still there")
	}
	if _, err := c.Sync(t.Context(), SyncInput{}); err != nil {
		t.Error(err)
	}
	if len(s.devices) != 1 {
		t.Errorf("%d devices", len(s.devices))
	}
}

// A machine that slept past the end presents what it has; the server decides.
func TestExpiredIdentityIsStillPresented(t *testing.T) {
	s := newServer(t)
	s.backdate, s.life = 48*time.Hour, time.Hour
	c := client(t, config(s, &memory{}))
	if _, err := c.EnsureJoined(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.backdate, s.life = 0, 24*time.Hour
	if did, err := c.RenewIdentity(t.Context()); !did || err != nil {
		t.Fatalf("%v, %v", did, err)
	}
	if last := s.identity[len(s.identity)-1]; last != "device-0" {
		t.Errorf("renewed as %q", last)
	}
}

func TestWrongDeviceChainIsRefused(t *testing.T) {
	s := newServer(t)
	r, err := newRequest("join", "", "")
	if err != nil {
		t.Fatal(err)
	}
	other, err := newRequest("join", "", "")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := s.device(other.csr, "x")
	if err != nil {
		t.Fatal(err)
	}
	own, err := s.device(r.csr, "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.check(own); err != nil {
		t.Errorf("our own: %v", err)
	}
	long := own
	for range maxChain {
		long = append(long, own[1])
	}
	for name, chain := range map[string][][]byte{"none": nil, "another key": foreign, "garbage": {[]byte("x")}, "CA first": own[1:], "too long": long} {
		if _, err := r.check(chain); !errors.Is(err, errAnswer) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
