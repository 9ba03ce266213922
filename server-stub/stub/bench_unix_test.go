//go:build unix

package stub_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/lint"
	"smime-agent/server-stub/stub"
)

// cpu gives the CPU time of this process, user and system: the steadiest figure
// on a machine that has other things to do. Over the loopback it holds the
// client's share too.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func reportCPU(b *testing.B, begin time.Duration) {
	b.Helper()
	b.ReportMetric(float64((cpu(b)-begin).Microseconds())/float64(b.N), "cpu-µs/op")
}

func benchKeys(b *testing.B) map[string]crypto.Signer {
	b.Helper()
	small, err := rsaKeys(2048)
	if err != nil {
		b.Fatal(err)
	}
	large, err := rsaKeys(3072)
	if err != nil {
		b.Fatal(err)
	}
	return map[string]crypto.Signer{"p-256": p256(b), "rsa-2048": small, "rsa-3072": large}
}

// BenchmarkFloor is [stub.Floor] for each kind of key.
func BenchmarkFloor(b *testing.B) {
	floor, err := stub.NewFloor()
	if err != nil {
		b.Fatal(err)
	}
	for name, key := range benchKeys(b) {
		der := csr(b, key)
		b.Run(name, func(b *testing.B) {
			begin := cpu(b)
			for range b.N {
				if err := floor.Issue(der); err != nil {
					b.Fatal(err)
				}
			}
			reportCPU(b, begin)
		})
	}
}

type noLint struct{}

func (noLint) Check([]byte) error { return nil }

// BenchmarkIssue is the CA alone: parse and check the CSR, build, lint, sign, check.
func BenchmarkIssue(b *testing.B) {
	full, err := lint.New()
	if err != nil {
		b.Fatal(err)
	}
	settings := ca.Settings{CRLURL: "http://pki.example.com/crl", IssuerURL: "http://pki.example.com/ca", Reserved: true}
	hierarchy, err := ca.Found(ca.Founding{
		Organization: stub.Organization, Country: stub.Country, Settings: settings, Now: time.Now(),
		RootCRLURL: "http://pki.example.com/root.crl", RootURL: "http://pki.example.com/root",
	})
	if err != nil {
		b.Fatal(err)
	}
	profile, _ := ca.ProfileByName("employee-dual")
	for name, linter := range map[string]ca.Lint{"without-lint": noLint{}, "with-lint": full} {
		issuer, err := ca.NewIssuer([]*x509.Certificate{hierarchy.Issuing.Cert, hierarchy.Root.Cert}, hierarchy.Issuing.Key, linter, settings)
		if err != nil {
			b.Fatal(err)
		}
		for kind, key := range benchKeys(b) {
			der := csr(b, key)
			b.Run(name+"/"+kind, func(b *testing.B) {
				begin := cpu(b)
				for range b.N {
					if err := issueOnce(b.Context(), issuer, profile, der); err != nil {
						b.Fatal(err)
					}
				}
				reportCPU(b, begin)
			})
		}
	}
}

func issueOnce(ctx context.Context, issuer *ca.Issuer, profile ca.Profile, der []byte) error {
	request, err := ca.ParseCSR(der)
	if err != nil {
		return err
	}
	_, err = issuer.Issue(ctx, ca.Wanted{
		Serial: issuer.Serials.Next(time.Now()), Profile: profile, Key: request.PublicKey, Now: time.Now(),
		Subject: ca.Subject{
			Organization: stub.Organization, OrganizationID: stub.OrganizationID, Country: stub.Country,
			GivenName: "Alice", Surname: "Example", CommonName: "Alice Example", Mailboxes: []string{"alice@example.com"},
		},
	})
	return err
}

// BenchmarkSubmit is a durable issue over mTLS on the loopback. Its CPU time
// holds client and server; BenchmarkPoll's says what of it is the call itself.
// It also counts the bytes that a certificate takes on the disk.
func BenchmarkSubmit(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) { benchSubmit(b, callers) })
	}
}

func benchSubmit(b *testing.B, callers int) {
	s := start(b, stub.Options{Dir: filepath.Join(b.TempDir(), "server")})
	text := token(b, s, &controlv1.CreateTokenRequest{MaxUses: 100})
	devices := make([]*device, min(callers, 8))
	for i := range devices {
		devices[i] = join(b, s, text)
		devices[i].syncAs(b, alice())
	}
	requests := make([][]byte, b.N)
	for i := range requests {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		requests[i] = csr(b, key)
	}
	before := used(b, s.Dir)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	begin := cpu(b)
	for w := range callers {
		wg.Go(func() {
			d := devices[w%len(devices)]
			for i := next.Add(1) - 1; i < int64(len(requests)); i = next.Add(1) - 1 {
				if _, err := d.Submit(b.Context(), submission(enrollmentID(int(i)), requests[i])); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	reportCPU(b, begin)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "certificates/s")
	b.ReportMetric(float64(used(b, s.Dir)-before)/float64(b.N), "file-B/op")
}

// used gives the pages of the records file that hold something. The file itself
// grows in steps and keeps freed pages for the next write.
func used(b *testing.B, dir string) int64 {
	b.Helper()
	path := filepath.Join(b.TempDir(), "copy.db")
	data, err := os.ReadFile(filepath.Join(dir, "records.db"))
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		b.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true, ReadOnly: false})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var size int64
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, bucket *bbolt.Bucket) error {
			stats := bucket.Stats()
			size += int64(stats.LeafAlloc + stats.BranchAlloc)
			return nil
		})
	})
	if err != nil {
		b.Fatal(err)
	}
	return size
}

// BenchmarkPoll is a Sync with nothing new on a kept connection.
func BenchmarkPoll(b *testing.B) {
	s := start(b, stub.Options{})
	d := join(b, s, token(b, s, &controlv1.CreateTokenRequest{}))
	revision := d.syncAs(b, alice()).GetPolicyRevision()
	b.ResetTimer()
	begin := cpu(b)
	for range b.N {
		resp, err := d.Sync(b.Context(), &controlv1.SyncRequest{Users: []*controlv1.UserPresence{alice()}, PolicyRevision: revision})
		if err != nil || resp.GetPolicyChanged() {
			b.Fatal(resp, err)
		}
	}
	reportCPU(b, begin)
}
