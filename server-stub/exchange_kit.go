package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/exchange"
	"smime-agent/server-stub/site"
)

// The files of the kit. The store holds certificates only.
const (
	kitStore    = "issuers.sst"
	kitConfig   = "smime-config.ps1"
	kitMailFlow = "mail-flow.ps1"
)

func (a *app) exchangeCommand() *cobra.Command {
	var w exchange.Wishes
	var more []string
	cmd := &cobra.Command{
		Use: "exchange FOLDER", Short: "Write what Exchange needs for Outlook on the web and the new Outlook", Args: cobra.ExactArgs(1),
		Long: "Writes to a new folder: " + kitStore + ", the issuers; " + kitConfig + ", which hands them to Exchange and sets how\n" +
			"messages are signed; " + kitMailFlow + ", which keeps rules of mail flow from breaking signatures. The scripts show what\n" +
			"they would change until they are run with -Apply. Run it anew when an issuing CA is added.",
		Example: "  " + self() + " exchange kit --dir pilot --always-sign --also public-issuers.pem",
		RunE: func(_ *cobra.Command, args []string) error {
			n, err := writeKit(args[0], a, w, more)
			if err != nil {
				return cure(err, "Nothing of use was written; remove the folder if it is there, and try again.")
			}
			_, err = fmt.Fprintf(a.out, "%d certificates and two scripts in %s.\n", n, args[0])
			return err
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&w.AlwaysSign, "always-sign", false, "every message of everybody is signed")
	flags.BoolVar(&w.AlwaysEncrypt, "always-encrypt", false, "every message of everybody is encrypted")
	flags.StringArrayVar(&more, "also", nil, "PEM file with further issuers and roots; may be given again")
	return cmd
}

func writeKit(dir string, a *app, w exchange.Wishes, more []string) (int, error) {
	store := []string{filepath.Join(a.dir, site.RootCert), filepath.Join(a.dir, site.IssuingCert)}
	all, err := readAll(append(store, more...))
	if err != nil {
		return 0, err
	}
	w.Organization, w.StoreFile = strings.Join(all[0].Subject.Organization, ", "), kitStore
	sst, err := exchange.SST(all, a.now())
	if err != nil {
		return 0, err
	}
	script, err := exchange.ConfigScript(w)
	if err != nil {
		return 0, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // nothing in it is secret
		return 0, err
	}
	return len(all), errors.Join(
		ca.WriteFile(filepath.Join(dir, kitStore), sst),
		ca.WriteFile(filepath.Join(dir, kitConfig), []byte(script)),
		ca.WriteFile(filepath.Join(dir, kitMailFlow), []byte(exchange.MailFlowScript())))
}

// readAll reads the certificates of several files, each once.
func readAll(files []string) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for _, file := range files {
		certs, err := ca.ReadCertificates(file)
		if err != nil {
			return nil, err
		}
		for _, c := range certs {
			if !slices.ContainsFunc(all, c.Equal) {
				all = append(all, c)
			}
		}
	}
	return all, nil
}
