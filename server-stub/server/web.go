package server

import (
	"net/http"

	"smime-agent/server-stub/publish"
	"smime-agent/server-stub/responder"
)

// Web serves revocation lists and CA certificates over plain HTTP.
func (s *Server) Web() http.Handler {
	chain := s.issuer.Chain()
	status := &responder.Responder{Issuer: s.issuer, Lookup: s.certificateStatus, Now: s.now}
	return publish.Handler(publish.Sources{
		Issuing: chain[0], Root: chain[len(chain)-1], List: s.crl.Get, RootList: s.rootCRL,
		Status: status.Answer, MaxRequest: responder.MaxRequest, Log: s.log,
	})
}
