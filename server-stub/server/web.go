package server

import (
	"net/http"

	"smime-agent/server-stub/publish"
)

// Web serves revocation lists and CA certificates over plain HTTP.
func (s *Server) Web() http.Handler {
	chain := s.issuer.Chain()
	return publish.Handler(publish.Sources{
		Issuing: chain[0], Root: chain[len(chain)-1], List: s.crl.Get, RootList: s.rootCRL, Log: s.log,
	})
}
