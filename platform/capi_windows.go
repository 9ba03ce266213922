package platform

import (
	"crypto"
	"crypto/rsa"
	"fmt"

	"smime-agent/platform/internal/wincrypt"
)

// capiProvider is CryptoAPI's provider for RSA. It knows neither PSS nor
// elliptic curves. Its OAEP has SHA-1 and no choice, which nobody needs to
// believe of a key that was never asked for it.
type capiProvider struct{}

func (capiProvider) algorithms() ([]KeyAlgorithm, error) {
	if _, err := wincrypt.Containers(); err != nil {
		return nil, fmt.Errorf("%s: %w", wincrypt.CAPIProvider, windowsError(err))
	}
	return []KeyAlgorithm{RSA2048, RSA3072, RSA4096}, nil
}

func (capiProvider) make(name string, spec KeySpec) error {
	bits, ok := map[KeyAlgorithm]uint32{RSA2048: 2048, RSA3072: 3072, RSA4096: 4096}[spec.Algorithm]
	if !ok {
		return fmt.Errorf("%w: %s makes RSA keys only", ErrUnsupported, wincrypt.CAPIProvider)
	}
	return wincrypt.MakeContainer(name, bits)
}

func (capiProvider) names() ([]string, error) { return wincrypt.Containers() }

func (capiProvider) remove(name string) error { return wincrypt.DeleteContainer(name) }

func (capiProvider) open(name string) (windowsHandle, error) {
	k, err := wincrypt.OpenContainer(name)
	if err != nil {
		return nil, err
	}
	return capiHandle{k, name}, nil
}

type capiHandle struct {
	*wincrypt.CAPIKey
	name string
}

func (h capiHandle) facts() (windowsFacts, error) {
	blob, err := h.Public()
	if err != nil {
		return windowsFacts{}, err
	}
	public, err := wincrypt.ParseCAPIBlob(blob)
	if err != nil {
		return windowsFacts{}, err
	}
	exportable, err := h.Exportable()
	return windowsFacts{public: public, sealed: !exportable, location: wincrypt.KeyLocation{
		Container: h.name, Provider: wincrypt.CAPIProvider, Type: wincrypt.CAPIProviderType, Spec: wincrypt.KeyExchange}}, err
}

// capiHashes are CryptoAPI's numbers.
var capiHashes = map[crypto.Hash]uint32{crypto.SHA1: wincrypt.CAPISHA1, crypto.SHA256: wincrypt.CAPISHA256,
	crypto.SHA384: wincrypt.CAPISHA384, crypto.SHA512: wincrypt.CAPISHA512}

func (h capiHandle) sign(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	hash, ok := capiHashes[opts.HashFunc()]
	if _, pss := opts.(*rsa.PSSOptions); pss || !ok {
		return nil, fmt.Errorf("%w: %T with %v", ErrUnsupported, opts, opts.HashFunc())
	}
	return h.Sign(hash, digest)
}

func (h capiHandle) decrypt(msg []byte, oaep *rsa.OAEPOptions) ([]byte, error) {
	if oaep != nil {
		return nil, fmt.Errorf("%w: OAEP", ErrUnsupported)
	}
	return h.Decrypt(msg)
}

func (h capiHandle) agree([]byte) ([]byte, error) {
	return nil, fmt.Errorf("%w: an RSA key agrees on nothing", ErrUnsupported)
}
