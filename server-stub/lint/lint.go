// Package lint judges a certificate before it is signed for real: by zlint,
// and by checks of our own for what zlint misses. It wants the exact
// to-be-signed content with a signature that is worth nothing (S/MIME BR
// 4.3.1.2 allows a throw-away key or a static value), so that a refusal leaves
// no signed certificate behind.
package lint

import (
	"crypto/x509"
	"fmt"
	"strings"

	zx509 "github.com/zmap/zcrypto/x509"
	_ "github.com/zmap/zlint/v3" // registers the lints
	zlint "github.com/zmap/zlint/v3/lint"
)

// replaced are lints that a check of our own does in their stead.
// e_rsa_fermat_factorization takes 100 square roots of the modulus, which is
// most of the time of a whole run; [fermat] gives the same verdict (its test
// holds the two side by side) at a hundredth of the cost.
func replaced() []string { return []string{"e_rsa_fermat_factorization"} }

// Finding is one thing that is wrong with a certificate.
type Finding struct {
	// Check is zlint's name of the lint, or one of ours ("Z1").
	Check string
	// Detail is what was found, for an administrator.
	Detail string
	// Warning findings do not refuse the certificate.
	Warning bool
}

// Error is a refusal with everything that led to it.
type Error struct {
	Findings []Finding
}

func (e *Error) Error() string {
	parts := make([]string, 0, len(e.Findings))
	for _, f := range e.Findings {
		parts = append(parts, strings.TrimSuffix(f.Check+": "+f.Detail, ": "))
	}
	return "lint refuses the certificate: " + strings.Join(parts, "; ")
}

// Linter is a fixed choice of lints. It may be used by many at once.
//
// Every certificate is linted by all of them; what costs is spared where it
// changes nothing: the lints that read only what a certificate has in common with
// others of its kind ([fixed], [formal]) run once for the kind, those that tell from it that
// they are about other kinds of certificate ([gated]) are asked once, and zcrypto, which zlint
// reads by, parses one certificate of the kind in full and of the others what differs.
type Linter struct {
	// fixed and others are all lints; ofSubject are some of the others.
	fixed, others, ofSubject []*zlint.CertificateLint
	gated                    map[string]bool
	config                   zlint.Configuration
	skeletons                skeletons
}

// New chooses the lints once, so that a run does not.
func New() (*Linter, error) {
	registry, err := zlint.GlobalRegistry().Filter(zlint.FilterOptions{
		IncludeSources: zlint.SourceList{
			zlint.CABFSMIMEBaselineRequirements,
			zlint.RFC5280,
			zlint.MozillaRootStorePolicy,
			zlint.AppleRootStorePolicy,
			zlint.Community,
		},
		ExcludeNames: replaced(),
	})
	if err != nil {
		return nil, fmt.Errorf("choose lints: %w", err)
	}
	l := &Linter{config: registry.GetConfiguration(), gated: gated()}
	fixed, formal, subject := fixed(), formal(), ofSubject()
	for _, lint := range registry.CertificateLints().Lints() {
		switch {
		case strings.HasPrefix(lint.Name, "n_"): // a notice, which is less than a warning
		case fixed[lint.Name], formal[lint.Name]:
			l.fixed = append(l.fixed, lint)
		case subject[lint.Name]:
			l.ofSubject = append(l.ofSubject, lint)
		default:
			l.others = append(l.others, lint)
		}
	}
	if len(l.fixed) == 0 || len(l.others) == 0 || len(l.ofSubject) != len(subject) {
		return nil, fmt.Errorf("choose lints: not all are registered")
	}
	return l, nil
}

// Check refuses a bad subscriber certificate (DER) with an [*Error]. What
// cannot be parsed is refused too.
func (l *Linter) Check(der []byte) error {
	findings := l.Findings(der)
	var bad []Finding
	for _, f := range findings {
		if !f.Warning {
			bad = append(bad, f)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return &Error{Findings: bad}
}

// Findings gives all there is to say about a certificate, warnings included.
func (l *Linter) Findings(der []byte) []Finding {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return []Finding{{Check: "parse", Detail: err.Error()}}
	}
	findings := own(cert)
	parsed, known, err := l.read(der, cert)
	if err != nil {
		return append(findings, Finding{Check: "parse-zcrypto", Detail: err.Error()})
	}
	findings = append(findings, known.findings...)
	findings = append(findings, l.run(known.others, parsed)...)
	if plain(parsed.RawSubject) {
		return findings
	}
	return append(findings, l.run(l.ofSubject, parsed)...)
}

// read gives the certificate as zlint wants it, and what is known of its kind.
// zcrypto is a parser of its own: what it refuses, other judges will too.
func (l *Linter) read(der []byte, cert *x509.Certificate) (*zx509.Certificate, *skeleton, error) {
	p, ours := split(der)
	if ours {
		if k := l.skeletons.find(p, cert.NotBefore); k != nil {
			if parsed, err := splice(k.sample, p, der, cert); err == nil {
				return parsed, k, nil
			}
		}
	}
	parsed, err := zx509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	// Lints have zcrypto remember in the certificate what it derived from the
	// subject and the names: the sample is for others, and none has looked at it.
	sample := *parsed
	k := &skeleton{sample: &sample, findings: l.run(l.fixed, parsed), others: l.others}
	if ours {
		k.others = l.concerned(parsed)
		k.from, k.until = cert.NotBefore, until(cert.NotBefore, l.fixed, l.others)
		l.skeletons.keep(p, k)
	}
	return parsed, k, nil
}

// concerned are the lints of the others that may find something in certificates
// of the kind: those in effect that do not rule the kind out.
func (l *Linter) concerned(parsed *zx509.Certificate) (some []*zlint.CertificateLint) {
	for _, lint := range l.others {
		if lint.CheckEffective(parsed) && (!l.gated[lint.Name] || applies(lint, parsed)) {
			some = append(some, lint)
		}
	}
	return some
}

// applies asks a lint whether it is about a certificate; one that stumbles over
// the question is run, which reports that.
func applies(lint *zlint.CertificateLint, parsed *zx509.Certificate) (yes bool) {
	defer func() {
		if recover() != nil {
			yes = true
		}
	}()
	return lint.Lint().CheckApplies(parsed)
}

func (l *Linter) run(lints []*zlint.CertificateLint, parsed *zx509.Certificate) (findings []Finding) {
	for _, lint := range lints {
		result := lint.Execute(parsed, l.config)
		if result.Status < zlint.Warn {
			continue
		}
		findings = append(findings, Finding{
			Check: lint.Name, Detail: result.Details, Warning: result.Status == zlint.Warn,
		})
	}
	return findings
}
