package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/smallstep/pkcs7"
	"github.com/spf13/cobra"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/directory"
)

func (a *app) directoryCommand() *cobra.Command {
	var form format
	req := &controlv1.ListPublicationsRequest{}
	cmd := &cobra.Command{
		Use: "directory", Short: "Which certificate others find for each mailbox, and what became of it in the directory", Args: cobra.NoArgs,
		Example: "  " + self() + " directory\n  " + self() + " directory --now --match alice",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				all, err := publications(ctx, c, req)
				if err != nil {
					return err
				}
				return a.printPublications(all, form)
			})
		},
	}
	form.flags(cmd)
	cmd.Flags().StringVar(&req.Matches, "match", "", "only mailboxes with this in them")
	cmd.Flags().BoolVar(&req.Now, "now", false, "look at the directory, and write to it, before answering")
	return cmd
}

func publications(ctx context.Context, c controlv1.AdminServiceClient, req *controlv1.ListPublicationsRequest) ([]*controlv1.Publication, error) {
	stream, err := c.ListPublications(ctx, req)
	if err != nil {
		return nil, err
	}
	var all []*controlv1.Publication
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, part.GetPublications()...)
	}
}

func (a *app) printPublications(all []*controlv1.Publication, form format) error {
	if form.json {
		return printJSON(a.out, all)
	}
	head := []string{"MAILBOX", "STATE", "SIGNED", "ENDS", "SEEN", "NEXT TRY", "HOST", "SERIAL", "PROBLEM"}
	if form.csv {
		head = []string{"mailbox", "state", "signed", "not_after", "seen", "next_try", "hostname", "serial", "problem"}
	}
	rows := [][]string{head}
	wrong := 0
	for _, p := range all {
		signed := "no"
		if p.GetSigned() {
			signed = "yes"
		}
		switch p.GetState() {
		case directory.NotFound, directory.Ambiguous, directory.Failed:
			wrong++
		}
		rows = append(rows, []string{p.GetMailbox(), p.GetState(), signed, day(p.GetNotAfter()), minute(p.GetSeen()),
			minute(p.GetNextTry()), dash(p.GetHostname()), dash(p.GetSerial()), dash(p.GetProblem())})
	}
	if form.csv {
		return writeCSV(a.out, rows)
	}
	if err := table(a.out, rows); err != nil || wrong == 0 {
		return err
	}
	_, err := fmt.Fprintf(a.out, "%d mailboxes are not as they should be.\n", wrong)
	return err
}

func (a *app) exportCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "export", Short: "Write out what others need"}
	var folder string
	req := &controlv1.ListPublicationsRequest{WithValues: true}
	certificates := &cobra.Command{
		Use: "certificates", Short: "For each mailbox its certificate (.cer) and the same with its issuers (.p7b)", Args: cobra.NoArgs,
		Example: "  " + self() + " export certificates --to for-partners",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.asAdmin(cmd.Context(), func(ctx context.Context, c controlv1.AdminServiceClient) error {
				all, err := publications(ctx, c, req)
				if err != nil {
					return err
				}
				return a.writeCertificates(folder, all)
			})
		},
	}
	certificates.Flags().StringVar(&folder, "to", "certificates", "folder to write to; it is made")
	certificates.Flags().StringVar(&req.Matches, "match", "", "only mailboxes with this in them")
	cmd.AddCommand(certificates)
	return cmd
}

// writeCertificates writes those that are to be found; others get none.
func (a *app) writeCertificates(folder string, all []*controlv1.Publication) error {
	if err := os.MkdirAll(folder, 0o755); err != nil { //nolint:gosec // these are for everybody
		return err
	}
	root, err := os.OpenRoot(folder) // an address cannot name a file elsewhere
	if err != nil {
		return err
	}
	n := 0
	for _, p := range all {
		if len(p.GetChain()) == 0 {
			continue
		}
		p7b, err := pkcs7.DegenerateCertificate(concatenated(p.GetChain()))
		if err != nil {
			return errors.Join(err, root.Close())
		}
		name := fileName(p.GetMailbox())
		err = errors.Join(root.WriteFile(name+".cer", p.GetChain()[0], 0o644), root.WriteFile(name+".p7b", p7b, 0o644))
		if err != nil {
			return errors.Join(err, root.Close())
		}
		n++
	}
	if err := root.Close(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "%d mailboxes written to %s, of %d that have or had certificates.\n", n, filepath.Clean(folder), len(all))
	return err
}

// concatenated puts DER certificates one after the other, as the library wants them.
func concatenated(chain [][]byte) []byte {
	var all []byte
	for _, der := range chain {
		all = append(all, der...)
	}
	return all
}

// fileName keeps what every system takes in a name.
func fileName(mailbox string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || strings.ContainsRune(`/\:*?"<>|`, r) {
			return '_'
		}
		return r
	}, mailbox)
}
