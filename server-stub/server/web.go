package server

import (
	"net/http"
	"sync"
	"time"

	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/publish"
	"smime-agent/server-stub/responder"
	"smime-agent/server-stub/store"
)

// crlCache holds the list that is handed out, until it is spoilt or half old.
type crlCache struct {
	mu   sync.Mutex
	der  []byte
	made time.Time
}

func (c *crlCache) spoil() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.der = nil
}

// crlAge is when a new list is made although nothing was revoked.
const crlAge = 24 * time.Hour

// revocationList gives the issuing CA's list (DER).
func (s *Server) revocationList() ([]byte, error) {
	s.crl.mu.Lock()
	defer s.crl.mu.Unlock()
	now := s.now()
	if s.crl.der != nil && now.Sub(s.crl.made) < crlAge && now.Sub(s.crl.made) >= 0 {
		return s.crl.der, nil
	}
	var revoked []ca.Revocation
	err := s.store.View(func(tx store.Tx) error {
		return store.EachJSON(tx, store.Marks, nil, func(key []byte, mark store.Mark) bool {
			// An entry stays for one list more after the certificate's end (RFC 5280, 3.3).
			if !mark.RevokedAt.IsZero() && now.Before(mark.NotAfter.Add(ca.CRLLife)) {
				r := ca.Revocation{At: mark.RevokedAt, Reason: mark.Reason}
				copy(r.Serial[:], key)
				revoked = append(revoked, r)
			}
			return true
		})
	})
	if err != nil {
		return nil, err
	}
	der, err := s.issuer.RevocationList(revoked, now)
	if err != nil {
		return nil, err
	}
	s.crl.der, s.crl.made = der, now
	return der, nil
}

// Web serves revocation lists and CA certificates over plain HTTP.
func (s *Server) Web() http.Handler {
	chain := s.issuer.Chain()
	status := &responder.Responder{Issuer: s.issuer, Lookup: s.certificateStatus, Now: s.now}
	return publish.Handler(publish.Sources{
		Issuing: chain[0], Root: chain[len(chain)-1], List: s.revocationList, RootList: s.rootCRL,
		Status: status.Answer, MaxRequest: responder.MaxRequest, Log: s.log,
	})
}
