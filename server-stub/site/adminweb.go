package site

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"smime-agent/server-stub/page"
)

// adminWeb readies the administrators' page: plain HTTP on an address of this
// machine alone, else HTTPS with an administrator's certificate.
func (s *Site) adminWeb(ctx context.Context, address string, o Options) error {
	if address == "" {
		return nil
	}
	handler, err := page.New(s.Server, o.Command, o.Log)
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	tcp, ok := l.Addr().(*net.TCPAddr)
	s.admin = &http.Server{
		ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	s.AdminAddr = "http://" + l.Addr().String() + "/"
	if ok && tcp.IP.IsLoopback() {
		s.admin.Handler = page.Loopback(handler)
		l = s.lobby("admin_web", insiders, o.Log).Guard(s.admin, l)
	} else {
		s.AdminAddr = "https://" + l.Addr().String() + "/"
		s.admin.Handler = page.Administrators(handler, s.administrator)
		l = tls.NewListener(s.lobby("admin_web", insiders, o.Log).Guard(s.admin, l), &tls.Config{
			MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert, ClientCAs: s.Transport.Roots(),
			GetCertificate: s.cert.get, Time: s.cert.now,
		})
	}
	s.serving.Go(func() {
		if err := s.admin.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	})
	return nil
}

// administrator judges the certificate of a request, whose key the handshake has proved.
func (s *Site) administrator(r *http.Request, cert *x509.Certificate) error {
	identity, err := s.Transport.Identify(cert)
	if err != nil {
		return err
	}
	return s.Server.Administrator(r.Context(), identity)
}
