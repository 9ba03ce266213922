package server

import (
	"net/http"
	"sync"
	"time"

	"smime-agent/server-stub/ca"
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

// The paths of the plain HTTP side. They stand in every certificate.
const (
	PathCRL     = "/crl"
	PathCA      = "/ca"
	PathRootCRL = "/root.crl"
	PathRoot    = "/root"
)

const (
	typeCRL  = "application/pkix-crl"
	typeCert = "application/pkix-cert"
)

// Web serves revocation lists and CA certificates over plain HTTP, as BR
// 7.1.2.3 wants it: what it hands out is signed.
func (s *Server) Web() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+PathCRL, func(w http.ResponseWriter, _ *http.Request) {
		der, err := s.revocationList()
		if err != nil {
			s.log.Error("revocation list cannot be made", "error", err)
			http.Error(w, "The revocation list cannot be made at the moment.", http.StatusServiceUnavailable)
			return
		}
		send(w, typeCRL, der)
	})
	chain := s.issuer.Chain()
	mux.HandleFunc("GET "+PathCA, func(w http.ResponseWriter, _ *http.Request) { send(w, typeCert, chain[0]) })
	mux.HandleFunc("GET "+PathRoot, func(w http.ResponseWriter, _ *http.Request) { send(w, typeCert, chain[len(chain)-1]) })
	mux.HandleFunc("GET "+PathRootCRL, func(w http.ResponseWriter, _ *http.Request) {
		der, err := s.rootCRL()
		if err != nil {
			s.log.Error("the root's revocation list cannot be read", "error", err)
			http.Error(w, "The root's revocation list cannot be read at the moment.", http.StatusServiceUnavailable)
			return
		}
		send(w, typeCRL, der)
	})
	return mux
}

func send(w http.ResponseWriter, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "max-age=3600")
	_, _ = w.Write(body) // a reader that went away is no concern of ours
}
