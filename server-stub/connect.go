package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/site"
)

// callTime bounds an administrator's call.
const callTime = 30 * time.Second

// asAdmin runs a call with the administrator's identity.
func (a *app) asAdmin(ctx context.Context, call func(context.Context, controlv1.AdminServiceClient) error) error {
	return a.asAdminFor(ctx, callTime, call)
}

func (a *app) asAdminFor(ctx context.Context, atMost time.Duration, call func(context.Context, controlv1.AdminServiceClient) error) error {
	conn, err := a.dial()
	if err != nil {
		return cure(err, `Name the data directory with --dir, or the files with --admin-cert, --ca and --server.`)
	}
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	return errors.Join(call(ctx, controlv1.NewAdminServiceClient(conn)), conn.Close())
}

func (a *app) dial() (*grpc.ClientConn, error) {
	server := a.server
	if server == "" {
		config, err := site.ReadConfig(a.dir)
		if err != nil {
			return nil, err
		}
		_, port, err := net.SplitHostPort(config.Listen)
		if err != nil {
			return nil, err
		}
		server = net.JoinHostPort(config.Hosts[0], port)
	}
	caText, err := os.ReadFile(a.file(a.caFile, site.TransportCert))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(caText) {
		return nil, errors.New("the transport CA's file has no certificate")
	}
	path := a.file(a.adminCert, site.AdminIdentity)
	identity, err := tls.LoadX509KeyPair(path, path)
	if err != nil {
		return nil, err
	}
	return grpc.NewClient(server, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{identity},
	})))
}

func (a *app) file(flag, name string) string {
	if flag != "" {
		return flag
	}
	return filepath.Join(a.dir, filepath.FromSlash(name))
}

// explain gives errors of any depth a sentence that helps.
func explain(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*cured](err); ok {
		return err
	}
	// Not status.FromError: that takes the text of what wraps the status for its message.
	if st, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](err); ok {
		return explainStatus(st.GRPCStatus())
	}
	return cureOf(err)
}

func explainStatus(st *status.Status) error {
	err := errors.New(st.Message())
	if slices.ContainsFunc(st.Details(), func(detail any) bool { _, ok := detail.(*errdetails.RetryInfo); return ok }) {
		return cure(err, "Try again in a minute; if that does not help, look at the server's log.") // the server answers, and says when
	}
	switch st.Code() {
	case codes.Unavailable, codes.DeadlineExceeded:
		// grpc writes: connection error: desc = "transport: …"
		if _, why, ok := strings.Cut(st.Message(), `desc = "`); ok {
			err = errors.New("the server does not answer: " + strings.TrimPrefix(strings.TrimSuffix(why, `"`), "transport: "))
		}
		return cure(err, "Is the server running? Start it with \""+starting()+"\", or name another with --server.")
	case codes.Unauthenticated:
		return cure(err, `Use the administrator's certificate of this server (--admin-cert); "`+self()+` admin create" makes one.`)
	default:
		return err
	}
}
