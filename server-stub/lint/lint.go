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
type Linter struct {
	lints  []*zlint.CertificateLint
	config zlint.Configuration
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
	lints := registry.CertificateLints().Lints()
	if len(lints) == 0 {
		return nil, fmt.Errorf("choose lints: none is registered")
	}
	return &Linter{lints: lints, config: registry.GetConfiguration()}, nil
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
	// zcrypto is a parser of its own: what it refuses, other judges will too.
	parsed, err := zx509.ParseCertificate(der)
	if err != nil {
		return append(findings, Finding{Check: "parse-zcrypto", Detail: err.Error()})
	}
	for _, lint := range l.lints {
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
