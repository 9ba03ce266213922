package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
)

func newCSR(t testing.TB) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

func dialTest(t testing.TB, dir, addr string, identity *tls.Certificate) *grpc.ClientConn {
	t.Helper()
	certs, err := ca.ReadCertificates(filepath.Join(dir, "transport/ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(certs[0])
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}
	if identity != nil {
		config.Certificates = []tls.Certificate{*identity}
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// machine is a device that joined.
type machine struct {
	controlv1.ControlServiceClient
	id       string
	identity tls.Certificate
}

func joined(t testing.TB, dir, addr, token string) *machine {
	t.Helper()
	key, der := newCSR(t)
	resp, err := controlv1.NewControlServiceClient(dialTest(t, dir, addr, nil)).Join(t.Context(), &controlv1.JoinRequest{Token: token, Csr: der})
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{id: resp.GetDeviceId(), identity: tls.Certificate{Certificate: resp.GetChain(), PrivateKey: key}}
	m.dial(t, dir, addr)
	_, err = m.Sync(t.Context(), &controlv1.SyncRequest{Users: []*controlv1.UserPresence{{User: "uid:1000", Account: "alice"}}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) dial(t testing.TB, dir, addr string) {
	m.ControlServiceClient = controlv1.NewControlServiceClient(dialTest(t, dir, addr, &m.identity))
}

func wanted(n int, csr []byte) *controlv1.SubmitRequest {
	return &controlv1.SubmitRequest{
		EnrollmentId: enrollmentID(n), Csr: csr, Profile: "employee-dual", User: "uid:1000",
		Mailboxes: []string{"alice@example.com"}, Store: "nss:default", Protection: "software", Reason: "first",
	}
}

func (m *machine) enroll(t testing.TB, n int) *x509.Certificate {
	t.Helper()
	_, csr := newCSR(t)
	resp, err := m.Submit(t.Context(), wanted(n, csr))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(resp.GetOutcome().GetIssued().GetChain()[0])
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// order is one request of the storm: a join or a submission, and what was acknowledged.
type order struct {
	join   *controlv1.JoinRequest
	submit *controlv1.SubmitRequest
	// acknowledged is the device ID or the reference that an answer gave.
	acknowledged string
}

// TestKillStorm kills the server again and again while machines join and
// submit. What was acknowledged must still be so, and whatever was not must
// complete when it is sent again. 12 kills by default; STUB_KILLS sets another number.
func TestKillStorm(t *testing.T) { killStorm(t, found(t)) }

func killStorm(t *testing.T, dir string) {
	t.Helper()
	kills := 12
	if text := os.Getenv("STUB_KILLS"); text != "" {
		var err error
		if kills, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	} else if testing.Short() {
		kills = 3
	}
	c := serve(t, dir)
	m := joined(t, dir, c.addr, oneToken(t, dir, c.addr))
	var all []*order
	for round := range kills {
		fresh := storm(t, dir, c.addr, m, round)
		// Between no answer and nearly all, so that every stage of a request is met.
		for range mathrand.IntN(len(fresh.orders)) {
			<-fresh.answered
		}
		c.kill(t)
		fresh.wait()
		all = append(all, fresh.orders...)
		c = serve(t, dir)
		m.dial(t, dir, c.addr)
		lost := 0
		for _, o := range fresh.orders {
			lost += settleOrder(t, dir, c.addr, m, o)
		}
		t.Logf("kill %d: %d requests, %d of them unanswered when it came", round+1, len(fresh.orders), lost)
	}
	verifyStorm(t, dir, c.addr, all)
	c.stop(t)
}

func oneToken(t testing.TB, dir, addr string) string {
	t.Helper()
	return strings.TrimSpace(mustCLI(t, "token", "create", "--dir", dir, "--server", addr))
}

type wave struct {
	orders []*order
	// answered gets one for each request that has come to an end.
	answered chan struct{}
	wait     func()
}

// storm begins 8 joins, each with a token of its own, and 24 submissions.
func storm(t *testing.T, dir, addr string, m *machine, round int) wave {
	t.Helper()
	var w wave
	for range 8 {
		_, csr := newCSR(t)
		w.orders = append(w.orders, &order{join: &controlv1.JoinRequest{Token: oneToken(t, dir, addr), Csr: csr}})
	}
	for n := range 24 {
		_, csr := newCSR(t)
		w.orders = append(w.orders, &order{submit: wanted(1000*(round+1)+n, csr)})
	}
	anonymous := controlv1.NewControlServiceClient(dialTest(t, dir, addr, nil))
	var wg sync.WaitGroup
	w.answered = make(chan struct{}, len(w.orders))
	for _, o := range w.orders {
		wg.Go(func() {
			defer func() { w.answered <- struct{}{} }()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_ = o.send(ctx, anonymous, m) // unanswered is what the test is about
		})
	}
	w.wait = wg.Wait
	return w
}

// send keeps what the answer says; an answer that contradicts an earlier one is an error.
func (o *order) send(ctx context.Context, anonymous controlv1.ControlServiceClient, m *machine) error {
	var got string
	if o.join != nil {
		resp, err := anonymous.Join(ctx, o.join)
		if err != nil {
			return err
		}
		got = resp.GetDeviceId()
	} else {
		resp, err := m.Submit(ctx, o.submit)
		if err != nil {
			return err
		}
		got = resp.GetReference()
	}
	if o.acknowledged != "" && o.acknowledged != got {
		return errors.New("acknowledged as " + o.acknowledged + ", now " + got)
	}
	o.acknowledged = got
	return nil
}

// settleOrder sends it again to the server that came back, and counts those that had no answer.
func settleOrder(t *testing.T, dir, addr string, m *machine, o *order) int {
	t.Helper()
	unanswered := 0
	if o.acknowledged == "" {
		unanswered = 1
	}
	if err := o.send(t.Context(), controlv1.NewControlServiceClient(dialTest(t, dir, addr, nil)), m); err != nil {
		t.Errorf("a retry does not complete: %v", err)
	}
	return unanswered
}

// verifyStorm asks the ledger: each submission has exactly one certificate.
func verifyStorm(t *testing.T, dir, addr string, all []*order) {
	t.Helper()
	var entries []struct {
		Serial       string `json:"serial"`
		EnrollmentID string `json:"enrollment_id"`
	}
	if err := json.Unmarshal([]byte(mustCLI(t, "ledger", "--json", "--dir", dir, "--server", addr)), &entries); err != nil {
		t.Fatal(err)
	}
	serials, enrollments := map[string]bool{}, map[string]string{}
	for _, e := range entries {
		if serials[e.Serial] || enrollments[e.EnrollmentID] != "" {
			t.Errorf("%s or %s is there twice", e.Serial, e.EnrollmentID)
		}
		serials[e.Serial], enrollments[e.EnrollmentID] = true, e.Serial
	}
	submissions := 0
	for _, o := range all {
		if o.submit == nil {
			continue
		}
		submissions++
		if enrollments[o.submit.GetEnrollmentId()] != o.acknowledged {
			t.Errorf("%s was acknowledged as %s, the ledger has %q",
				o.submit.GetEnrollmentId(), o.acknowledged, enrollments[o.submit.GetEnrollmentId()])
		}
	}
	if len(entries) != submissions {
		t.Errorf("the ledger has %d certificates for %d submissions", len(entries), submissions)
	}
}
