// Package publish hands out what everybody may read: revocation lists and CA
// certificates, over plain HTTP, as S/MIME BR 7.1.2.3 wants it. All of it is signed.
package publish

import (
	"log/slog"
	"net/http"
)

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

// Sources are where it comes from, all DER.
type Sources struct {
	// Issuing and Root are the CAs' certificates.
	Issuing, Root []byte
	// List and RootList give their revocation lists.
	List, RootList func() ([]byte, error)
	Log            *slog.Logger
}

// Handler serves them.
func Handler(s Sources) http.Handler {
	mux := http.NewServeMux()
	list := func(path string, get func() ([]byte, error)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			der, err := get()
			if err != nil {
				s.Log.Error("revocation list cannot be given", "path", path, "error", err)
				http.Error(w, "The revocation list cannot be given at the moment.", http.StatusServiceUnavailable)
				return
			}
			send(w, typeCRL, der)
		})
	}
	list(PathCRL, s.List)
	list(PathRootCRL, s.RootList)
	mux.HandleFunc("GET "+PathCA, func(w http.ResponseWriter, _ *http.Request) { send(w, typeCert, s.Issuing) })
	mux.HandleFunc("GET "+PathRoot, func(w http.ResponseWriter, _ *http.Request) { send(w, typeCert, s.Root) })
	return mux
}

func send(w http.ResponseWriter, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "max-age=3600")
	_, _ = w.Write(body) // a reader that went away is no concern of ours
}
