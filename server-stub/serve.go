package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"

	"github.com/spf13/cobra"

	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/site"
)

func (a *app) initCommand() *cobra.Command {
	f := site.Founding{}
	cmd := &cobra.Command{
		Use: "init", Short: "Make a new server's data directory with its CAs", Args: cobra.NoArgs,
		Example: `  server-stub init --dir pilot --organization "Example GmbH" --country DE \
    --organization-identifier NTRDE-DER3306.HRB12345 --host pki.example.com`,
		RunE: func(*cobra.Command, []string) error {
			f.Dir, f.Now, f.Command = a.dir, a.now(), self()
			err := site.Found(f)
			if errors.Is(err, site.ErrExists) {
				return cure(err, "Choose an empty directory: a CA's keys cannot be made again, so nothing is overwritten.")
			}
			if err != nil {
				return cure(err, "Nothing was made; put it right and call init again.")
			}
			return a.next()
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.Organization, "organization", "", "full legal name of the company")
	flags.StringVar(&f.Country, "country", "", "its country, two letters")
	flags.StringVar(&f.OrganizationID, "organization-identifier", "", "its number in a register, e.g. NTRDE-DER3306.HRB12345")
	flags.StringArrayVar(&f.Hosts, "host", nil, "name or address of this server, may be repeated (default: this machine's name, localhost)")
	flags.StringVar(&f.Listen, "listen", "", "address for agents and administrators (default :8443)")
	flags.StringVar(&f.Web, "web", "", "address for revocation lists over HTTP (default :8080)")
	flags.StringVar(&f.AdminWeb, "admin-web", "", "address for the administrators' web page, such as 127.0.0.1:8081 (default: none)")
	flags.StringVar(&f.PublicURL, "public-url", "", "beginning of the URLs in certificates (default http://HOST:PORT)")
	flags.StringVar(&f.OwnPolicy, "own-policy-oid", "", "the company's policy OID, in place of the reserved one")
	flags.StringVar(&f.Postgres, "postgres", "", "database for the records as libpq has it, without a password (default: the file records.db)")
	flags.StringVar(&f.PasswordFile, "postgres-password-file", "", "file with its password, mode 0600, in the data directory or with its full path")
	flags.BoolVar(&f.RSA, "rsa", false, "RSA CAs; each certificate then costs some ten times the work")
	for _, name := range []string{"organization", "country", "organization-identifier"} {
		_ = cmd.MarkFlagRequired(name) // fails only for a flag that is not there
	}
	return cmd
}

func (a *app) next() error {
	config, err := site.ReadConfig(a.dir)
	if err != nil {
		return err
	}
	certs, err := ca.ReadCertificates(filepath.Join(a.dir, site.TransportCert))
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(config.Listen)
	if err != nil {
		return err
	}
	pin := ca.NewTransport(ca.Pair{Cert: certs[0]}).Pin()
	_, err = fmt.Fprintf(a.out, `The server is founded in %[1]s. Next:

  1. Take %[2]s off this machine and keep it locked away:
     it is needed again only for another issuing CA.
  2. Write your people into %[3]s and your rules into %[4]s.
  3. Start:           %[8]s
  4. Let machines in: %[9]s --uses 10 --life 7d

Agents need in their settings
  server: %[5]s
  server_ca: a copy of %[6]s
  or, in its place,
  server_pin: %[7]s
`, a.dir, filepath.Join(a.dir, site.RootKey), filepath.Join(a.dir, site.PeopleFile), filepath.Join(a.dir, site.PolicyFile),
		net.JoinHostPort(config.Hosts[0], port), filepath.Join(a.dir, site.TransportCert), pin,
		a.inWords("serve"), a.inWords("token create"))
	return err
}

func (a *app) serveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "serve", Short: "Serve agents and administrators until told to stop", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			leaveRoom()
			ctx := cmd.Context()
			log := slog.New(slog.NewTextHandler(a.err, nil))
			s, err := site.Open(ctx, a.dir, site.Options{Now: a.now, Log: log, Command: self()})
			if err != nil {
				return a.lasting(err)
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			log.Info("serving", "address", s.Addr, "web", s.WebAddr)
			if s.AdminAddr != "" {
				log.Info("administrators' page", "url", s.AdminAddr)
			}
			line := fmt.Sprintf("listening on %s, web on %s", s.Addr, s.WebAddr)
			if s.MetricsAddr != "" {
				line += ", metrics on " + s.MetricsAddr
			}
			if _, err := fmt.Fprintln(a.out, line); err != nil {
				return err
			}
			if err := tellReady(ctx); err != nil {
				return err
			}
			return s.Wait(ctx)
		},
	}
}
