package helper_test

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/agent/helper"
	"smime-agent/platform"
)

// lend gives the session as the service sees it: the helper's own, or what comes
// out at the other end of the pipe.
type lend func(t *testing.T, s *helper.Session) enroll.Session

func TestSession(t *testing.T) {
	testSession(t, func(_ *testing.T, s *helper.Session) enroll.Session { return s })
}

// testSession holds what the service may rely on, wherever the session is.
func testSession(t *testing.T, l lend) {
	t.Run("whole life", func(t *testing.T) { suiteLife(t, l) })
	t.Run("retries", func(t *testing.T) { suiteRetries(t, l) })
	t.Run("requests", func(t *testing.T) { suiteRequests(t, l) })
	t.Run("install refuses", func(t *testing.T) { suiteInstallRefuses(t, l) })
	t.Run("proofs that fail", func(t *testing.T) { suiteProofs(t, l) })
	t.Run("kept", func(t *testing.T) { suiteKept(t, l) })
	t.Run("clock", func(t *testing.T) { suiteClock(t, l) })
	t.Run("inventory", func(t *testing.T) { suiteInventory(t, l) })
	t.Run("discard", func(t *testing.T) { suiteDiscard(t, l) })
	t.Run("prepare", func(t *testing.T) { suitePrepare(t, l) })
	t.Run("person", func(t *testing.T) { suitePerson(t, l) })
	t.Run("only our keys", func(t *testing.T) { suiteOnlyOurKeys(t, l) })
}

const id = enroll.ID("smime-01900000-0000-7000-8000-000000000001")

func wanted(keys ...string) enroll.RequestWanted {
	return enroll.RequestWanted{
		ID: id, Store: "mem", Keys: keys, Mailboxes: []string{mailbox, "lin@corp.example"}, DisplayName: "Lin Mei",
		Sign: true, Encrypt: true,
	}
}

func (w *world) proof(chain [][]byte) enroll.ProofWanted {
	return enroll.ProofWanted{ID: id, Store: "mem", Mailbox: mailbox, Chain: chain, Anchors: w.anchors(), Sign: true, Encrypt: true}
}

// enrolled brings a credential to where it can be proved.
func enrolled(t *testing.T, w *world, s enroll.Session, change func(*x509.Certificate)) [][]byte {
	t.Helper()
	made, err := s.MakeRequest(t.Context(), wanted("p-256", "rsa-2048", "p-384"))
	if err != nil {
		t.Fatal(err)
	}
	chain := w.issue(t, made.CSR, change)
	if err := s.Install(t.Context(), enroll.InstallWanted{ID: id, Store: "mem", Chain: chain}); err != nil {
		t.Fatal(err)
	}
	return chain
}

func suiteLife(t *testing.T, l lend) {
	for _, algorithm := range []platform.KeyAlgorithm{platform.RSA2048, platform.P256, platform.P384} {
		store := newStore("mem", algorithm)
		w := newWorld(t, store)
		s := l(t, w.session)
		made, err := s.MakeRequest(t.Context(), wanted("rsa-3072", "rsa-2048", "p-256", "p-384"))
		if err != nil {
			t.Fatal(err)
		}
		if made.Algorithm != string(algorithm) || made.Protection != "software" {
			t.Errorf("made %s, %s", made.Algorithm, made.Protection)
		}
		checkCSR(t, made.CSR)
		chain := w.issue(t, made.CSR, nil)
		for range 2 { // twice is no error
			if err := s.Install(t.Context(), enroll.InstallWanted{ID: id, Store: "mem", Chain: chain, Trust: w.anchors()}); err != nil {
				t.Fatal(err)
			}
		}
		if len(store.trusted) == 0 || !store.trusted[0].Equal(w.root) {
			t.Error("the anchor is not trusted")
		}
		p, err := s.Prove(t.Context(), w.proof(chain))
		if err != nil {
			t.Fatal(err)
		}
		if !p.OK() || !p.Signs || !p.Decrypts || !p.ChainOK || p.Protection != "software" || len(p.Algorithms) != 3 || !p.At.Equal(w.now) {
			t.Errorf("%s: proof %+v", algorithm, p)
		}
	}
}

func checkCSR(t *testing.T, der []byte) {
	t.Helper()
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := csr.CheckSignature(); err != nil {
		t.Error(err)
	}
	if !slices.Equal(csr.EmailAddresses, []string{mailbox, "lin@corp.example"}) || csr.Subject.CommonName != "Lin Mei" {
		t.Errorf("CSR for %v, %v", csr.EmailAddresses, csr.Subject)
	}
	usage := []byte{3, 2, 3, 0x88} // digitalSignature, keyAgreement
	if _, ok := csr.PublicKey.(*rsa.PublicKey); ok {
		usage = []byte{3, 2, 5, 0xa0} // digitalSignature, keyEncipherment
	}
	i := slices.IndexFunc(csr.Extensions, func(e pkix.Extension) bool { return e.Id.String() == "2.5.29.15" })
	if i < 0 || !slices.Equal(csr.Extensions[i].Value, usage) || !csr.Extensions[i].Critical {
		t.Errorf("keyUsage asked for: %v", csr.Extensions)
	}
}

func suiteRetries(t *testing.T, l lend) {
	store := newStore("mem", platform.P256)
	w := newWorld(t, store)
	s := l(t, w.session)
	first, err := s.MakeRequest(t.Context(), wanted("p-256"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.MakeRequest(t.Context(), wanted("p-256"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(publicOf(t, first.CSR), publicOf(t, again.CSR)) || len(store.keys) != 1 {
		t.Error("a retry made another key")
	}
	reuse := wanted("p-256")
	reuse.ID, reuse.ReuseKeyOf = id+"2", id
	same, err := s.MakeRequest(t.Context(), reuse)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(publicOf(t, first.CSR), publicOf(t, same.CSR)) || len(store.keys) != 1 {
		t.Error("the key was not used again")
	}
	reuse.ReuseKeyOf = id + "3"
	_, err = s.MakeRequest(t.Context(), reuse)
	wantError(t, err, enroll.Final, enroll.CodeKeyMissing)
	if len(store.keys) != 1 {
		t.Error("a key was made in place of the missing one")
	}
}

func publicOf(t *testing.T, der []byte) []byte {
	t.Helper()
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return csr.RawSubjectPublicKeyInfo
}

func suiteRequests(t *testing.T, l lend) {
	store := newStore("mem", platform.P256)
	w := newWorld(t, store)
	s := l(t, w.session)
	refused := func(name string, r enroll.RequestWanted, kind enroll.Kind, code enroll.Code) {
		t.Run(name, func(t *testing.T) {
			_, err := s.MakeRequest(t.Context(), r)
			wantError(t, err, kind, code)
		})
	}
	refused("no accepted kind", wanted("rsa-3072"), enroll.Waiting, enroll.CodeStoreUnsuitable)
	if len(store.keys) != 0 {
		t.Error("a key was made that nobody accepts")
	}
	elsewhere := wanted("p-256")
	elsewhere.Store = "gone"
	refused("no such store", elsewhere, enroll.Waiting, enroll.CodeStoreMissing)
	for _, tt := range []struct {
		name string
		err  error
		kind enroll.Kind
		code enroll.Code
	}{
		{"locked", platform.ErrLocked, enroll.Waiting, enroll.CodeStoreLocked},
		{"denied", platform.ErrDenied, enroll.Waiting, enroll.CodeStoreDenied},
		{"broken", errors.New("0x30"), enroll.Transient, enroll.CodeStoreFailed},
	} {
		for _, op := range []string{"open", "create"} {
			store.fail = func(o string) error {
				if o == op {
					return tt.err
				}
				return nil
			}
			refused(tt.name+" at "+op, wanted("p-256"), tt.kind, tt.code)
		}
	}
	store.fail = nil
	if _, err := s.MakeRequest(t.Context(), wanted("p-256")); err != nil {
		t.Fatal(err)
	}
	if len(store.keys) != 1 {
		t.Errorf("%d keys", len(store.keys))
	}
	store.signsOnly = true
	refused("key that cannot decrypt", wanted("p-256"), enroll.Waiting, enroll.CodeStoreUnsuitable)
	store.signsOnly = false
	refused("found key of another kind", wanted("rsa-2048"), enroll.Waiting, enroll.CodeStoreUnsuitable)
	if len(store.keys) != 1 {
		t.Error("the found key was replaced")
	}
}

func suiteInstallRefuses(t *testing.T, l lend) {
	store := newStore("mem", platform.P256)
	w := newWorld(t, store)
	s := l(t, w.session)
	made, err := s.MakeRequest(t.Context(), wanted("p-256"))
	if err != nil {
		t.Fatal(err)
	}
	good := w.issue(t, made.CSR, nil)
	foreign := certify(t, &x509.Certificate{EmailAddresses: []string{mailbox}}, w.issuing, ecKey(t).Public(), w.issuingKey)
	for _, tt := range []struct {
		name string
		w    enroll.InstallWanted
		kind enroll.Kind
		code enroll.Code
	}{
		{"another key", enroll.InstallWanted{ID: id, Store: "mem", Chain: [][]byte{foreign.Raw, w.issuing.Raw}}, enroll.Final, enroll.CodeCertificateRejected},
		{"no chain", enroll.InstallWanted{ID: id, Store: "mem"}, enroll.Final, enroll.CodeCertificateRejected},
		{"garbage", enroll.InstallWanted{ID: id, Store: "mem", Chain: [][]byte{{1, 2, 3}}}, enroll.Final, enroll.CodeCertificateRejected},
		{"anchor that is no CA", enroll.InstallWanted{ID: id, Store: "mem", Chain: good, Trust: good[:1]}, enroll.Final, enroll.CodeCertificateRejected},
		{"key missing", enroll.InstallWanted{ID: id + "2", Store: "mem", Chain: good}, enroll.Final, enroll.CodeKeyMissing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wantError(t, s.Install(t.Context(), tt.w), tt.kind, tt.code)
			if len(store.certs) != 0 || len(store.trusted) != 0 {
				t.Error("something was filed")
			}
		})
	}
	store.fail = func(op string) error {
		if op == "find" {
			return platform.ErrNotFound
		}
		return nil
	}
	wantError(t, s.Install(t.Context(), enroll.InstallWanted{ID: id, Store: "mem", Chain: good}), enroll.Transient, enroll.CodeStoreFailed)
	store.fail, store.certs = nil, nil
	store.loses = w.issuing // filed, it seems, and not there afterwards
	wantError(t, s.Install(t.Context(), enroll.InstallWanted{ID: id, Store: "mem", Chain: good}), enroll.Transient, enroll.CodeStoreFailed)
}

func suiteProofs(t *testing.T, l lend) {
	for _, tt := range []struct {
		name  string
		issue func(*x509.Certificate)
		spoil func(*world, *enroll.ProofWanted)
		want  enroll.Proof
	}{
		{"other mailbox", nil, func(_ *world, p *enroll.ProofWanted) { p.Mailbox = "eve@corp.example" }, enroll.Proof{Signs: true, Decrypts: true, ChainOK: true}},
		{"other anchor", nil, func(w *world, p *enroll.ProofWanted) { p.Anchors = [][]byte{w.issuingSelf(t).Raw} }, enroll.Proof{Signs: true, Decrypts: true}},
		{"no anchors", nil, func(_ *world, p *enroll.ProofWanted) { p.Anchors = nil }, enroll.Proof{Signs: true, Decrypts: true}},
		{"expired", nil, func(w *world, _ *enroll.ProofWanted) { w.now = w.now.Add(2 * 365 * 24 * time.Hour) }, enroll.Proof{Signs: true, Decrypts: true}},
		{"not for mail", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, nil, enroll.Proof{Signs: true, Decrypts: true}},
		{"cannot encrypt", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }, nil, enroll.Proof{Signs: true, ChainOK: true}},
		{"cannot sign", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }, nil, enroll.Proof{Decrypts: true, ChainOK: true}},
		{"certificate removed", nil, func(w *world, _ *enroll.ProofWanted) { w.stores[0].certs = nil }, enroll.Proof{Signs: true, Decrypts: true, ChainOK: true}},
		{"issuer removed", nil, func(w *world, _ *enroll.ProofWanted) { w.stores[0].certs = w.stores[0].certs[:1] }, enroll.Proof{Signs: true, Decrypts: true, ChainOK: true}},
		{"another key under the name", nil, func(w *world, _ *enroll.ProofWanted) { w.stores[0].keys[platform.KeyID(id)] = ecKey(t) }, enroll.Proof{}},
		{"decryption broken", nil, func(w *world, _ *enroll.ProofWanted) { w.stores[0].fail = failing("decrypt", errors.New("0x70")) }, enroll.Proof{Signs: true, ChainOK: true}},
		{"garbage on record", nil, func(_ *world, p *enroll.ProofWanted) { p.Chain = [][]byte{{1}} }, enroll.Proof{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, newStore("mem", platform.P256))
			s := l(t, w.session)
			wanted := w.proof(enrolled(t, w, s, tt.issue))
			if tt.spoil != nil {
				tt.spoil(w, &wanted)
			}
			p, err := s.Prove(t.Context(), wanted)
			if err != nil {
				t.Fatal(err)
			}
			if p.OK() || p.Signs != tt.want.Signs || p.Decrypts != tt.want.Decrypts || p.ChainOK != tt.want.ChainOK {
				t.Errorf("proof %+v", p)
			}
		})
	}
	for _, tt := range []struct {
		op   string
		err  error
		kind enroll.Kind
		code enroll.Code
	}{
		{"open", platform.ErrNotFound, enroll.Final, enroll.CodeKeyMissing},
		{"open", platform.ErrLocked, enroll.Waiting, enroll.CodeStoreLocked},
		{"find", platform.ErrLocked, enroll.Waiting, enroll.CodeStoreLocked},
		{"decrypt", platform.ErrLocked, enroll.Waiting, enroll.CodeStoreLocked},
		{"decrypt", platform.ErrDenied, enroll.Waiting, enroll.CodeStoreDenied},
	} {
		t.Run(tt.op+" "+string(tt.code), func(t *testing.T) {
			w := newWorld(t, newStore("mem", platform.P256))
			s := l(t, w.session)
			wanted := w.proof(enrolled(t, w, s, nil))
			w.stores[0].fail = failing(tt.op, tt.err)
			_, err := s.Prove(t.Context(), wanted)
			wantError(t, err, tt.kind, tt.code)
		})
	}
}

func failing(op string, err error) func(string) error {
	return func(o string) error {
		if o == op {
			return err
		}
		return nil
	}
}

// issuingSelf is an anchor that leads nowhere.
func (w *world) issuingSelf(t *testing.T) *x509.Certificate {
	k := ecKey(t)
	return certify(t, &x509.Certificate{IsCA: true, KeyUsage: x509.KeyUsageCertSign}, nil, k.Public(), k)
}

func suiteKept(t *testing.T, l lend) {
	store := newStore("mem", platform.P256)
	w := newWorld(t, store)
	s := l(t, w.session)
	kept := w.proof(enrolled(t, w, s, nil))
	kept.Kept, kept.Sign = true, false
	w.now = w.now.Add(3 * 365 * 24 * time.Hour)
	p, err := s.Prove(t.Context(), kept)
	if err != nil || !p.OK() || p.Signs || !p.Decrypts || !p.ChainOK {
		t.Errorf("expired: %+v, %v", p, err)
	}
	store.fail = failing("decrypt", errors.New("0x70"))
	if p, err = s.Prove(t.Context(), kept); err != nil || p.OK() {
		t.Errorf("cannot decrypt: %+v, %v", p, err)
	}
	store.fail, store.certs = nil, nil
	if p, err = s.Prove(t.Context(), kept); err != nil || p.OK() {
		t.Errorf("certificate gone: %+v, %v", p, err)
	}
}

// suiteClock: the service knows the time better than the session does.
func suiteClock(t *testing.T, l lend) {
	w := newWorld(t, newStore("mem", platform.P256))
	s := l(t, w.session)
	wanted := w.proof(enrolled(t, w, s, nil))
	right := w.now
	w.now = w.now.Add(-24 * time.Hour)
	if p, err := s.Prove(t.Context(), wanted); err != nil || p.OK() {
		t.Errorf("by the session's clock: %+v, %v", p, err)
	}
	wanted.Now = right
	if p, err := s.Prove(t.Context(), wanted); err != nil || !p.OK() || !p.At.Equal(right) {
		t.Errorf("by the service's: %+v, %v", p, err)
	}
}

func suiteInventory(t *testing.T, l lend) {
	good, bad, locked := newStore("mem", platform.P256, platform.RSA2048), newStore("bad"), newStore("locked")
	bad.fail = failing("keys", platform.ErrDenied)
	locked.pin = "1234"
	w := newWorld(t, good, bad, locked)
	w.broken = errors.Join(errors.New("open store nss:x: 0x30"), errors.Join(platform.ErrUnsupported))
	s := l(t, w.session)
	chain := enrolled(t, w, s, nil)
	half := wanted("p-256")
	half.ID += "2"
	if _, err := s.MakeRequest(t.Context(), half); err != nil {
		t.Fatal(err)
	}
	good.keys["somebody's"] = ecKey(t)
	v, err := s.Inventory(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Stores) != 1 || v.Stores[0].Name != "mem" || v.Stores[0].Protection != "software" ||
		!slices.Equal(v.Stores[0].Algorithms, []string{"p-256", "rsa-2048"}) || !slices.Equal(v.Stores[0].Consumers, []string{"Test"}) {
		t.Errorf("stores %+v", v.Stores)
	}
	if len(v.Keys) != 2 || v.Keys[0].ID != id || v.Keys[0].Store != "mem" || len(v.Keys[0].PublicKey) == 0 ||
		!slices.EqualFunc(v.Keys[0].Chain, chain, slices.Equal[[]byte]) {
		t.Errorf("keys %+v", v.Keys)
	}
	if len(v.Keys) == 2 && (v.Keys[1].ID != half.ID || len(v.Keys[1].Chain) != 0) {
		t.Errorf("key without certificate: %+v", v.Keys[1])
	}
	var codes []enroll.Code
	for _, f := range v.Failures {
		codes = append(codes, f.Code)
	}
	want := []enroll.Code{enroll.CodeStoreFailed, enroll.CodeStoreUnsuitable, enroll.CodeStoreDenied, enroll.CodeStoreLocked}
	if !slices.Equal(codes, want) {
		t.Errorf("failures %v, want %v", codes, want)
	}
	if len(w.person.entries) != 0 {
		t.Error("an inventory asked for a PIN")
	}
}

func suiteDiscard(t *testing.T, l lend) {
	store := newStore("mem", platform.P256)
	w := newWorld(t, store)
	s := l(t, w.session)
	if _, err := s.MakeRequest(t.Context(), wanted("p-256")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Discard(t.Context(), "mem", id, nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(store.keys) != 0 {
		t.Error("the key is still there")
	}
	enrolled(t, w, s, nil)
	wantError(t, s.Discard(t.Context(), "mem", id, nil), enroll.Waiting, enroll.CodeStoreDenied)
	if len(store.keys) != 1 {
		t.Error("a key with a certificate was deleted")
	}
}

func suitePerson(t *testing.T, l lend) {
	w := newWorld(t)
	s := l(t, w.session)
	for answer, verdict := range map[platform.Answer]enroll.Verdict{
		platform.AnswerYes: enroll.Approve, platform.AnswerNo: enroll.Decline, platform.AnswerLater: enroll.Later, "maybe": enroll.Later,
	} {
		w.person.answers = []platform.Answer{answer}
		got, err := s.Ask(t.Context(), enroll.Question{ID: id, Organization: "Corp", Mailbox: mailbox})
		if err != nil || got != verdict {
			t.Errorf("%s is %s, %v", answer, got, err)
		}
	}
	if q := w.person.asked[0]; q.Title != "Corp" || q.Timeout != 0 {
		t.Errorf("asked %+v", q)
	}
	if err := s.Notify(t.Context(), enroll.Notice{Code: enroll.NoticeEnrolled, Mailbox: mailbox}); err != nil || w.person.told[0].Text != mailbox {
		t.Errorf("told %v, %v", w.person.told, err)
	}
	w.person.fail = platform.ErrUnsupported
	_, err := s.Ask(t.Context(), enroll.Question{ID: id})
	wantError(t, err, enroll.Waiting, enroll.CodeNobodyToAsk)
	wantError(t, s.Notify(t.Context(), enroll.Notice{}), enroll.Waiting, enroll.CodeNobodyToAsk)
	w.person.fail = nil
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if v, err := s.Ask(ctx, enroll.Question{ID: id}); err == nil {
			t.Errorf("a question that was taken back is answered by %s", v)
		}
	})
	time.Sleep(20 * time.Millisecond)
	cancel()
	wg.Wait()
}

// suiteOnlyOurKeys plants requests about keys that are not ours.
func suiteOnlyOurKeys(t *testing.T, l lend) {
	store := newStore("mem", platform.P256)
	w := newWorld(t, store)
	s := l(t, w.session)
	store.keys["somebody's"] = ecKey(t)
	for _, foreign := range []enroll.ID{"somebody's", "", "smime-"} {
		r := wanted("p-256")
		r.ID = foreign
		_, err := s.MakeRequest(t.Context(), r)
		wantError(t, err, enroll.Final, enroll.CodeInternal)
		wantError(t, s.Install(t.Context(), enroll.InstallWanted{ID: foreign, Store: "mem"}), enroll.Final, enroll.CodeInternal)
		_, err = s.Prove(t.Context(), enroll.ProofWanted{ID: foreign, Store: "mem"})
		wantError(t, err, enroll.Final, enroll.CodeInternal)
		wantError(t, s.Discard(t.Context(), "mem", foreign, nil), enroll.Final, enroll.CodeInternal)
	}
	r := wanted("p-256")
	r.ReuseKeyOf = "somebody's"
	_, err := s.MakeRequest(t.Context(), r)
	wantError(t, err, enroll.Final, enroll.CodeInternal)
	if len(store.keys) != 1 {
		t.Error("somebody's key is gone, or a key was made")
	}
}
