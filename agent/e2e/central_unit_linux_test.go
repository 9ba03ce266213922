package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/durationpb"

	"smime-agent/agent/e2e"
	controlv1 "smime-agent/proto/control/v1"
)

const (
	centralUnit = "smime-central.service"
	centralName = "smime-central"
	centralHome = "/var/lib/smime-central"
	// worstCentralExposure is the gate on what systemd makes of the unit, times ten.
	worstCentralExposure = "15"
)

// central is central management as a service of a machine's systemd, and one
// device that it knows.
type central struct {
	*machine
	addr string
	// figures is where those for Prometheus are, from the first kill on.
	figures string
	calls   controlv1.ControlServiceClient
	n       int
	// issued are the references of what it has acknowledged.
	issued []string
}

// asServer runs a command as the administrator does.
func (c *central) asServer(t *testing.T, args ...string) string {
	t.Helper()
	return c.run(t, append([]string{centralName}, args...)...)
}

func (c *central) answers(t *testing.T) {
	t.Helper()
	c.eventually(t, 30*time.Second, "central management", func() error {
		out, err := c.try(t.Context(), centralName, "devices")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

func (c *central) hardening(t *testing.T) {
	c.run(t, "systemd-analyze", "security", "--no-pager", "--threshold="+worstCentralExposure, centralUnit)
	pid := c.property(t, centralUnit, "MainPID")
	facts := c.run(t, "cat", "/proc/"+pid+"/status")
	for _, want := range []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(facts, want) {
			t.Errorf("the running server has not %q:\n%s", want, facts)
		}
	}
	if got := c.run(t, "stat", "--format=%U", "/proc/"+pid); got != centralName {
		t.Errorf("the server runs as %s", got)
	}
	if got := c.run(t, "stat", "--format=%a %U:%G", centralHome); got != "700 "+centralName+":"+centralName {
		t.Errorf("%s: %s", centralHome, got)
	}
	// What it sees of the disk, even as root, is for reading but for its own folder.
	for path, may := range map[string]bool{centralHome + "/probe": true, "/etc/probe": false, "/usr/probe": false, "/var/probe": false, "/home/probe": false} {
		out, err := c.try(t.Context(), "nsenter", "--target", pid, "--mount", "--", "touch", path)
		if (err == nil) != may {
			t.Errorf("writing %s: %v %s", path, err, out)
		}
	}
	c.run(t, "rm", centralHome+"/probe")
	// Go reads how long its queue of callers may be, and else takes 128 (maxListenerBacklog
	// in net/sock_linux.go); figures say since when the server runs.
	for _, path := range []string{"/proc/sys/net/core/somaxconn", "/proc/stat"} {
		c.run(t, "nsenter", "--target", pid, "--mount", "--", "test", "-r", path)
	}
}

// join has a device come in, with alice logged in on it.
func (c *central) join(t *testing.T) {
	token := e2e.TokenIn(c.asServer(t, "token", "create"))
	key, csr := request(t)
	resp, err := controlv1.NewControlServiceClient(c.dial(t, nil)).Join(t.Context(), &controlv1.JoinRequest{Token: token, Csr: csr})
	must(t, err)
	c.calls = controlv1.NewControlServiceClient(c.dial(t, &tls.Certificate{Certificate: resp.GetChain(), PrivateKey: key}))
	_, err = c.calls.Sync(t.Context(), &controlv1.SyncRequest{Users: []*controlv1.UserPresence{{User: "uid:1000", Account: "alice"}}})
	must(t, err)
}

func (c *central) dial(t *testing.T, identity *tls.Certificate) *grpc.ClientConn {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(read(c.path(centralHome + "/transport/ca.crt")))) {
		t.Fatal("central management has no transport CA")
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}
	if identity != nil {
		config.Certificates = []tls.Certificate{*identity}
	}
	conn, err := grpc.NewClient(c.addr, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func request(t *testing.T) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	must(t, err)
	return key, csr
}

// issue gets a certificate and gives its reference. A server that is just coming back is waited for.
func (c *central) issue(t *testing.T) string {
	c.n++
	_, csr := request(t)
	resp, err := c.calls.Submit(t.Context(), &controlv1.SubmitRequest{
		EnrollmentId: fmt.Sprintf("smime-%d", c.n), Csr: csr, Profile: "employee-dual", User: "uid:1000",
		Mailboxes: []string{"alice@example.com"}, Store: "nss:default", Protection: "software", Reason: "first",
	}, grpc.WaitForReady(true))
	if err != nil || resp.GetOutcome().GetIssued() == nil {
		t.Errorf("no certificate: %v, %v", resp, err)
	}
	c.issued = append(c.issued, resp.GetReference())
	return resp.GetReference()
}

// has looks for references in the ledger.
func (c *central) has(t *testing.T, references ...string) {
	t.Helper()
	ledger := c.asServer(t, "ledger", "--csv")
	for _, reference := range references {
		if reference == "" || !strings.Contains(ledger, reference) {
			t.Errorf("the ledger has no certificate %q", reference)
		}
	}
}

// backedUp goes back to a copy that was made in the midst of work.
func (c *central) backedUp(t *testing.T) {
	saved := centralHome + "/saved.db"
	before := slices.Clone(c.issued)
	stop := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				c.issue(t)
			}
		}
	})
	c.asServer(t, "backup", saved)
	close(stop)
	work.Wait()
	later := c.issue(t)
	c.has(t, c.issued...)
	c.stopped(t)
	c.asServer(t, "restore", saved)
	c.run(t, "systemctl", "start", centralUnit)
	c.answers(t)
	c.has(t, before...)
	if strings.Contains(c.asServer(t, "ledger", "--csv"), later) {
		t.Error("what was issued after the backup is in what was restored")
	}
	c.issued = before
	c.issue(t)
}

// killed: systemd starts it anew, with the settings as they are then.
func (c *central) killed(t *testing.T) {
	path := c.path(centralHome + "/server.yaml")
	text := strings.Replace(read(path), `metrics: ""`, fmt.Sprintf("metrics: %q", c.figures), 1)
	must(t, os.WriteFile(path, []byte(text), 0o600)) // it stays the server's own
	before := c.property(t, centralUnit, "MainPID")
	c.run(t, "kill", "-KILL", before)
	c.eventually(t, 20*time.Second, "restart of "+centralUnit, func() error {
		if pid := c.property(t, centralUnit, "MainPID"); pid == before || pid == "0" || c.property(t, centralUnit, "NRestarts") != "1" {
			return fmt.Errorf("not started again: %s", pid)
		}
		return nil
	})
	c.answers(t)
}

// stopped ends it while a device holds a call, which must get its answer.
func (c *central) stopped(t *testing.T) {
	held := make(chan error, 1)
	synced, err := c.calls.Sync(t.Context(), &controlv1.SyncRequest{Users: []*controlv1.UserPresence{{User: "uid:1000", Account: "alice"}}})
	must(t, err)
	go func() {
		_, err := c.calls.Await(t.Context(), &controlv1.AwaitRequest{PolicyRevision: synced.GetPolicyRevision(), MaxWait: durationpb.New(time.Minute)})
		held <- err
	}()
	c.eventually(t, 20*time.Second, "a held call", func() error {
		resp, err := http.Get("http://" + c.figures + "/metrics")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), "\nsmime_server_calls_held 1\n") {
			return fmt.Errorf("none is held: %w", err)
		}
		return nil
	})
	begin := time.Now()
	c.run(t, "systemctl", "stop", centralUnit)
	if err := <-held; err != nil {
		t.Errorf("a call that was held got %v", err)
	}
	if result, code := c.property(t, centralUnit, "Result"), c.property(t, centralUnit, "ExecMainStatus"); result != "success" || code != "0" {
		t.Errorf("stopped with %s, code %s", result, code)
	}
	t.Logf("stopped in %s", time.Since(begin).Round(10*time.Millisecond))
	if left, err := filepath.Glob(c.path(centralHome + "/backup-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if info, err := os.Stat(c.path(centralHome + "/saved.db")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup: %v, %v", info, err)
	}
}
