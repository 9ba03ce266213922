//go:build linux

package e2e_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform"
	"smime-agent/server-stub/esttest"
)

// estCompany is a company whose certificates come from a CA behind EST, over real
// TLS, as server.yaml and policy.yaml say it.
func estCompany(t *testing.T) (*world, *esttest.Server) {
	t.Helper()
	est, err := esttest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(est.Close)
	w := company(t, nil)
	ctx := w.within()
	w.must(w.Founded(ctx))
	central := filepath.Join(w.Dir, "central")
	identity, err := est.IdentityPEM()
	w.must(err)
	for name, content := range map[string][]byte{
		"est-anchors.pem": esttest.PEM(est.Root.Cert), "est-tls.pem": esttest.PEM(est.TLS), "est-identity.pem": identity,
	} {
		w.must(os.WriteFile(filepath.Join(central, name), content, 0o600))
	}
	rewrite(t, filepath.Join(central, "server.yaml"), map[string]string{
		`  url: "" `: `  url: "` + est.URL + `" `, `  anchors: "" `: `  anchors: est-anchors.pem `,
		`  identity: "" `: `  identity: est-identity.pem `, "  ca_file: \"\"             # PEM file of the roots of its TLS certificate": "  ca_file: est-tls.pem   # PEM file of the roots of its TLS certificate",
		"pending_interval: 1m": "pending_interval: 2s",
	})
	rewrite(t, filepath.Join(central, "policy.yaml"), map[string]string{"{keys: [p-256]}": "{keys: [p-256], ca: est}"})
	w.must(w.StartServer(ctx))
	w.must(w.WriteSettings(ctx))
	return w, est
}

func rewrite(t *testing.T, path string, pieces map[string]string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out := string(text)
	for from, to := range pieces {
		if !strings.Contains(out, from) {
			t.Fatalf("%s has no %q", path, from)
		}
		out = strings.Replace(out, from, to, 1)
	}
	if err := os.WriteFile(path, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestEST goes from nothing to a proved certificate of another CA, which says
// once that it is not ready, and renews it there.
func TestEST(t *testing.T) {
	t.Parallel()
	w, est := estCompany(t)
	est.Delay(1, 1)
	w.must(w.StartAgent(w.within()))
	w.login(e2e.HelperOptions{})
	c, _ := credential(w.await("a proved certificate of the other CA", has(alice, enroll.Active)), alice, enroll.Active)
	if !c.Proof.OK() || c.Issuer != est.Issuing.Cert.Subject.String() {
		t.Errorf("credential %+v", c)
	}
	if e := w.ledgerOf(c); e.Mailbox != alice || e.Status != "valid" {
		t.Errorf("ledger %+v", e)
	}
	w.agent("renew", alice)
	fresh, _ := credential(w.await("a renewed one", func(r status.Report) bool {
		n, ok := credential(r, alice, enroll.Active)
		return ok && n.ID != c.ID
	}), alice, enroll.Active)
	if fresh.Serial == c.Serial || !fresh.Proof.OK() {
		t.Errorf("renewed %+v", fresh)
	}
	asked := est.Asked()
	first := slices.DeleteFunc(slices.Clone(asked), func(call string) bool { return !strings.HasSuffix(call, "/simpleenroll") })
	if len(first) != 2 || !slices.Contains(asked, "POST /.well-known/est/simplereenroll") || strings.Contains(strings.Join(asked, " "), "serverkeygen") {
		t.Errorf("the CA was asked %v", asked)
	}
}

// TestESTNotBelieved has the CA answer with another use than was ordered. (Another
// key, mailbox or root does not pass central management; its own tests plant
// them.) The agent refuses it and installs nothing; with the right answer all goes well.
func TestESTNotBelieved(t *testing.T) {
	t.Parallel()
	w, est := estCompany(t)
	est.Break("for encryption")
	w.must(w.StartAgent(w.within()))
	w.login(e2e.HelperOptions{})
	c, _ := credential(w.await("a refusal by the agent", func(r status.Report) bool {
		c, ok := credential(r, alice, enroll.Submitted, enroll.Over)
		return ok && c.Problem != nil && c.Problem.Code == enroll.CodeCertificateRejected
	}), alice, enroll.Submitted, enroll.Over)
	if chain := w.installed(c.ID); len(chain) != 0 {
		t.Errorf("%d certificates are installed", len(chain))
	}
	est.Break("")
	w.agent("enroll", alice)
	w.await("a proved certificate", has(alice, enroll.Active))
}

// installed are the certificates that lie beside a key in any of the stores.
func (w *world) installed(id enroll.ID) (all []*x509.Certificate) {
	w.t.Helper()
	stores, err := platform.Stores(w.t.Context(), w.oracle().options)
	w.must(err)
	for _, s := range stores {
		if chain, err := s.Find(w.t.Context(), platform.KeyID(id)); err == nil {
			all = append(all, chain...)
		}
	}
	return all
}
