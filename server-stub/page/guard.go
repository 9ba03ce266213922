package page

import (
	"crypto/x509"
	"net"
	"net/http"
	"strings"
)

// Loopback lets in who is on this machine, and asks for this machine by name:
// else a page of somebody else's, whose name was made to lead here, could read
// ours in the administrator's browser.
func Loopback(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil || !isLoopback(from) || !isLoopback(hostOf(r.Host)) {
			http.Error(w, "This page is for this machine only: open it as http://127.0.0.1 or http://localhost.", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func hostOf(hostPort string) string {
	if host, _, err := net.SplitHostPort(hostPort); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(hostPort, "["), "]") // an IPv6 address without a port
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Administrators lets in who has a certificate that check takes.
func Administrators(next http.Handler, check func(*http.Request, *x509.Certificate) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || check(r, r.TLS.PeerCertificates[0]) != nil {
			http.Error(w, "This page needs the client certificate of an administrator of this server.", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
