package enroll

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkPlan plans for a terminal server: 500 users with two stores each,
// where nothing is to be done.
func BenchmarkPlan(b *testing.B) {
	w := newWorld(b)
	var as []Assignment
	now := time.Now()
	for i := range 500 {
		a := assignment(fmt.Sprintf("uid:%d", i), fmt.Sprintf("u%d@example.com", i))
		a.Stores = []string{"nss:*"}
		as = append(as, a)
		for _, store := range []string{"nss:a", "nss:b"} {
			e := Enrollment{
				ID: ID(fmt.Sprintf("smime-%04d-%s", i, store)), Assignment: a, Store: store, State: Active,
				RenewAt: now.Add(100 * day), NotAfter: now.Add(200 * day), NextProof: now.Add(day),
			}
			w.record[e.ID] = e
		}
	}
	g, _ := w.engine()
	if err := g.Load(); err != nil {
		b.Fatal(err)
	}
	if err := g.Apply(w.policy(as...)); err != nil {
		b.Fatal(err)
	}
	if n := len(g.Enrollments()); n != 1000 {
		b.Fatalf("%d enrollments", n)
	}
	b.ResetTimer()
	for b.Loop() {
		g.mu.Lock()
		g.planNow()
		g.mu.Unlock()
	}
}

func BenchmarkCheckChain(b *testing.B) {
	w := newWorld(b)
	key, _ := selfSigned(b, w.ca.template([]string{"a@example.com"}, time.Now(), 365*day))
	csr := newCSR(b, key)
	leaf := w.ca.issue(b, csr, []string{"a@example.com"}, time.Now(), 365*day, nil)
	r := ChainRules{CSR: csr, Mailboxes: []string{"a@example.com"}, Sign: true, Encrypt: true,
		Anchors: [][]byte{w.ca.root.Raw}, Now: time.Now(), Ahead: time.Minute}
	for b.Loop() {
		if _, err := CheckChain([][]byte{leaf.Raw, w.ca.issuing.Raw}, r); err != nil {
			b.Fatal(err)
		}
	}
}
