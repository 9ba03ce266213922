// Package publish hands out what everybody may read: revocation lists and CA
// certificates, over plain HTTP, as S/MIME BR 7.1.2.3 wants it. All of it is signed.
package publish

import (
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
)

// The paths of the plain HTTP side. They stand in every certificate.
const (
	PathCRL     = "/crl"
	PathCA      = "/ca"
	PathRootCRL = "/root.crl"
	PathRoot    = "/root"
	PathOCSP    = "/ocsp"
)

const (
	typeCRL  = "application/pkix-crl"
	typeCert = "application/pkix-cert"
	// RFC 6960, appendix A.
	typeRequest  = "application/ocsp-request"
	typeResponse = "application/ocsp-response"
)

// Sources are where it comes from, all DER.
type Sources struct {
	// Issuing and Root are the CAs' certificates.
	Issuing, Root []byte
	// List and RootList give their revocation lists.
	List, RootList func() ([]byte, error)
	// Status answers an OCSP request (DER) of at most MaxRequest octets. keeps says that
	// others may keep the answer for a while: it is about a certificate.
	Status     func(request []byte) (response []byte, keeps bool, failed error)
	MaxRequest int64
	Log        *slog.Logger
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
	// Not by the mux: Base64 has slashes, and the mux would clean a path of two.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == PathOCSP || strings.HasPrefix(r.URL.Path, PathOCSP+"/") {
			s.ocsp(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// ocsp takes a request by POST, or by GET with the request in the path (RFC 6960, A.1).
func (s Sources) ocsp(w http.ResponseWriter, r *http.Request) {
	var request []byte
	var err error
	encoded, inPath := strings.CutPrefix(r.URL.Path, PathOCSP+"/")
	switch {
	case r.Method == http.MethodPost && !inPath && r.Header.Get("Content-Type") == typeRequest:
		request, err = io.ReadAll(http.MaxBytesReader(w, r.Body, s.MaxRequest))
	case r.Method == http.MethodGet && inPath:
		request, err = base64.StdEncoding.DecodeString(encoded)
	default:
		err = errors.New("no OCSP request")
	}
	if err != nil {
		http.Error(w, "An OCSP request is wanted: by POST, or by GET in the path as Base64.", http.StatusBadRequest)
		return
	}
	response, keeps, err := s.Status(request)
	if err != nil {
		s.Log.Error("status of a certificate cannot be given", "error", err)
	}
	w.Header().Set("Content-Type", typeResponse)
	w.Header().Set("Cache-Control", "no-store") // else a proxy says for minutes that there is no answer
	if keeps {
		w.Header().Set("Cache-Control", "max-age=600, public, no-transform")
	}
	_, _ = w.Write(response) // a reader that went away is no concern of ours
}

func send(w http.ResponseWriter, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "max-age=3600")
	_, _ = w.Write(body) // a reader that went away is no concern of ours
}
