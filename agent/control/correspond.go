package control

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"smime-agent/agent/enroll"
	controlv1 "smime-agent/proto/control/v1"
)

// Partners are all certificates of partners that are to be filed.
type Partners struct {
	// Digest names the set; [NoPartners] if it is empty.
	Digest string `json:"digest"`
	// Certificates are DER: of people, and issuers that came with them.
	Certificates [][]byte `json:"certificates"`
}

// NoPartners is the digest of an empty set.
const NoPartners = "none"

// The contract's bounds on partners' certificates and on values for the directory.
const (
	maxPartners      = 1000
	maxPartnersBytes = 2 << 20
	maxPublish       = 1024
)

// partnersIn takes a set whole or not at all; nil if there is none in the answer.
func partnersIn(p *controlv1.PartnerSet) (*Partners, error) {
	if p == nil {
		return nil, nil
	}
	size := 0
	for i, der := range p.GetCertificates() {
		if err := checkCertificate(der); err != nil {
			return nil, fmt.Errorf("%w: partner's certificate %d: %w", errAnswer, i, err)
		}
		size += len(der)
	}
	if len(p.GetCertificates()) > maxPartners || size > maxPartnersBytes {
		return nil, fmt.Errorf("%w: %d partners' certificates, %d bytes", errAnswer, len(p.GetCertificates()), size)
	}
	out := &Partners{Digest: DigestOf(p.GetCertificates()), Certificates: p.GetCertificates()}
	if out.Digest != p.GetDigest() {
		return nil, fmt.Errorf("%w: partners' certificates are not those of their digest", errAnswer)
	}
	return out, nil
}

// DigestOf names a set of certificates: the SHA-256, in hex, of their SHA-256s
// in order; [NoPartners] if there are none.
func DigestOf(certificates [][]byte) string {
	if len(certificates) == 0 {
		return NoPartners
	}
	sums := make([][]byte, 0, len(certificates))
	for _, der := range certificates {
		sum := sha256.Sum256(der)
		sums = append(sums, sum[:])
	}
	slices.SortFunc(sums, bytes.Compare)
	all := sha256.Sum256(bytes.Join(sums, nil))
	return hex.EncodeToString(all[:])
}

func publishIn(ids []string) []enroll.ID {
	var out []enroll.ID
	for _, id := range ids[:min(len(ids), maxPublish)] {
		out = append(out, enroll.ID(text(id)))
	}
	return out
}

// Publish hands in the value for the directory of an enrollment. Central
// management refuses one that the enrollment cannot have made.
func (c *Client) Publish(ctx context.Context, id enroll.ID, value []byte) error {
	device, err := c.known(ctx)
	if err != nil {
		return err
	}
	return c.exchange(ctx, device, c.cfg.Timeout, func(ctx context.Context, stub controlv1.ControlServiceClient) (*timestamppb.Timestamp, error) {
		_, err := stub.Publish(ctx, &controlv1.PublishRequest{EnrollmentId: text(string(id)), Value: value})
		return nil, err
	})
}
