package site

import (
	"cmp"
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"

	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/lint"
	"smime-agent/server-stub/mail"
	"smime-agent/server-stub/metrics"
	"smime-agent/server-stub/server"
	"smime-agent/server-stub/store"
)

// Options are what tests change; the zero value serves as the files say.
type Options struct {
	// Listener and WebListener stand for the addresses of the configuration.
	Listener    net.Listener
	WebListener net.Listener
	Now         func() time.Time
	Log         *slog.Logger
	// Command is how administrators call this program: "server-stub".
	Command    string
	Fault      func(method string) error
	AfterFault func(method string) error
	// Settings, field by field where not 0, stand for those of the configuration.
	Settings server.Settings
	// Externals are CAs beside those of the configuration.
	Externals map[string]server.External
	// Mail, where it has a Mailer, stands for that of the configuration.
	Mail mail.Outbox
}

// program is the name of this program where nobody gave it another.
const program = "server-stub"

// Site is a server at work.
type Site struct {
	// Server is the service itself.
	Server *server.Server
	// Transport is the CA of the TLS identities.
	Transport *ca.Transport
	// Addr and WebAddr are where it listens.
	Addr    string
	WebAddr string
	// AdminAddr is the URL of the administrators' page; empty means there is none.
	AdminAddr string
	// MetricsAddr is where figures and health are; empty means nowhere.
	MetricsAddr string

	grpc    *grpc.Server
	web     *http.Server
	admin   *http.Server
	metrics *http.Server
	figures *metrics.Metrics
	audit   *auditFile
	cert    *serverCertificate
	store   store.Store
	serving sync.WaitGroup
	failed  chan error
	once    sync.Once
	closing error
}

// Open starts to serve from a directory. The caller closes the site.
func Open(ctx context.Context, dir string, o Options) (_ *Site, err error) {
	config, err := ReadConfig(dir)
	if err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Command = cmp.Or(o.Command, program)
	s := &Site{failed: make(chan error, 4), figures: metrics.New()}
	if err := s.build(ctx, dir, config, o); err != nil {
		if s.store != nil {
			err = errors.Join(err, s.store.Close())
		}
		return nil, err
	}
	if err := s.listen(ctx, config, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.adminWeb(ctx, config.AdminWeb, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.watch(ctx, config.Metrics, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Site) build(ctx context.Context, dir string, config Config, o Options) error {
	settings, err := config.settings()
	if err != nil {
		return err
	}
	issuer, err := openIssuer(dir, config)
	if err != nil {
		return err
	}
	certs, key, err := ca.ReadPair(filepath.Join(dir, TransportCert), filepath.Join(dir, TransportKey))
	if err != nil {
		return err
	}
	s.Transport = ca.NewTransport(ca.Pair{Cert: certs[0], Key: key})
	rootList := &rootList{path: filepath.Join(dir, RootList)}
	if rootList.root, err = readRoot(dir); err != nil {
		return err
	}
	if _, err := rootList.get(); err != nil {
		return err
	}
	mailing, err := config.mailing(dir)
	if err != nil {
		return err
	}
	if o.Mail.Mailer != nil {
		mailing = o.Mail
	}
	if s.store, err = OpenRecords(ctx, dir, config, o.Log); err != nil {
		return err
	}
	externals, err := config.externals(dir, o.Now)
	if err != nil {
		return err
	}
	maps.Copy(externals, o.Externals)
	publishing, err := config.Directory.opening(dir)
	if err != nil {
		return err
	}
	var audit *slog.Logger
	if config.AuditLog != "" {
		s.audit = &auditFile{path: within(dir, config.AuditLog)}
		audit = auditLog(s.audit)
	}
	s.Server, err = server.New(server.Config{
		Store: s.store, Issuer: issuer, Transport: s.Transport, RootCRL: rootList.get, Mail: mailing, Directory: publishing,
		Scratch: dir, Externals: externals, Audit: audit, Observe: s.figures,
		Settings: override(settings, o.Settings), Now: o.Now, Log: o.Log, Fault: o.Fault, AfterFault: o.AfterFault,
	})
	if err != nil {
		return err
	}
	return s.handlers(ctx, dir, config, o)
}

// handlers readies what answers on the addresses.
func (s *Site) handlers(ctx context.Context, dir string, config Config, o Options) error {
	// The server's key is kept, so that agents may pin it.
	_, serverKey, err := ca.ReadPair(filepath.Join(dir, TransportCert), filepath.Join(dir, ServerKey))
	if err != nil {
		return err
	}
	if err := firstPolicy(ctx, dir, s.Server); err != nil {
		return err
	}
	s.cert = &serverCertificate{transport: s.Transport, key: serverKey, hosts: config.Hosts, now: o.Now}
	s.grpc = s.Server.GRPC(s.cert.get)
	s.web = &http.Server{
		Handler: s.Server.Web(), ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10,
	}
	return nil
}

func override(s, by server.Settings) server.Settings {
	for _, f := range []struct{ to, from *time.Duration }{
		{&s.SyncInterval, &by.SyncInterval}, {&s.PendingInterval, &by.PendingInterval},
		{&s.IdentityLife, &by.IdentityLife}, {&s.IdentityGrace, &by.IdentityGrace}, {&s.TokenLife, &by.TokenLife},
		{&s.RemindInterval, &by.RemindInterval},
	} {
		if *f.from != 0 {
			*f.to = *f.from
		}
	}
	s.Calls = cmp.Or(by.Calls, s.Calls)
	s.Connections, s.Handshakes = cmp.Or(by.Connections, s.Connections), cmp.Or(by.Handshakes, s.Handshakes)
	return s
}

func openIssuer(dir string, config Config) (*ca.Issuer, error) {
	certs, err := chain(dir)
	if err != nil {
		return nil, err
	}
	_, key, err := ca.ReadPair(filepath.Join(dir, IssuingCert), filepath.Join(dir, IssuingKey))
	if err != nil {
		return nil, err
	}
	linter, err := lint.New()
	if err != nil {
		return nil, err
	}
	return ca.NewIssuer(certs, key, linter, config.certificates())
}

// firstPolicy puts the files of the directory in force when none ever was.
// Later changes come by "policy apply".
func firstPolicy(ctx context.Context, dir string, srv *server.Server) error {
	if srv.HasPolicy() {
		return nil
	}
	rules, err := os.ReadFile(filepath.Join(dir, PolicyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	people, peopleErr := os.ReadFile(filepath.Join(dir, PeopleFile))
	if err := errors.Join(err, peopleErr); err != nil {
		return err
	}
	partners, err := PartnerFiles(rules, dir)
	if err != nil {
		return fmt.Errorf("read partners' certificates: %w", err)
	}
	if err := srv.FirstPolicy(ctx, rules, people, partners...); err != nil {
		return fmt.Errorf("apply the first policy: %w", err)
	}
	return nil
}

func (s *Site) listen(ctx context.Context, config Config, o Options) error {
	var lc net.ListenConfig
	var err error
	main, web := o.Listener, o.WebListener
	if main == nil {
		if main, err = lc.Listen(ctx, "tcp", config.Listen); err != nil {
			return err
		}
	}
	if web == nil {
		if web, err = lc.Listen(ctx, "tcp", config.Web); err != nil {
			return errors.Join(err, main.Close())
		}
	}
	s.Addr, s.WebAddr = main.Addr().String(), web.Addr().String()
	s.serving.Go(func() {
		if err := s.grpc.Serve(main); err != nil {
			s.failed <- err
		}
	})
	web = s.lobby("web", cmp.Or(config.MaxWebConnections, maxWeb), o.Log).Guard(s.web, web)
	s.serving.Go(func() {
		if err := s.web.Serve(web); err != nil && !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	})
	return nil
}

// Wait returns when ctx ends, or with the error that ended serving.
func (s *Site) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	}
}

// stopTime is how long calls may take to end.
const stopTime = 3 * time.Second

// Close ends serving, writes down what is in memory, and closes the records.
func (s *Site) Close() error {
	s.once.Do(func() {
		stopped := s.Server.Stop() // first: it lets go of calls that are held open
		hard := time.AfterFunc(stopTime, s.grpc.Stop)
		s.grpc.GracefulStop()
		hard.Stop()
		s.closing = errors.Join(stopped, s.web.Close())
		if s.admin != nil {
			s.closing = errors.Join(s.closing, s.admin.Close())
		}
		if s.metrics != nil {
			s.closing = errors.Join(s.closing, s.metrics.Close())
		}
		if s.audit != nil {
			s.closing = errors.Join(s.closing, s.audit.Close())
		}
		s.serving.Wait()
		s.closing = errors.Join(s.closing, s.store.Close())
	})
	return s.closing
}

// serverCertificate signs the server's TLS certificate anew in good time, so
// that nobody has to.
type serverCertificate struct {
	transport *ca.Transport
	key       crypto.Signer
	hosts     []string
	now       func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
}

const serverLife = 90 * 24 * time.Hour

func (c *serverCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.current != nil && now.Before(c.current.Leaf.NotAfter.Add(-serverLife/3)) && now.After(c.current.Leaf.NotBefore) {
		return c.current, nil
	}
	leaf, err := c.transport.IssueServer(c.hosts, c.key.Public(), now, serverLife)
	if err != nil {
		return nil, err
	}
	c.current = &tls.Certificate{Certificate: [][]byte{leaf.Raw, c.transport.Cert.Raw}, PrivateKey: c.key, Leaf: leaf}
	return c.current, nil
}
