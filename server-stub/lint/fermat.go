package lint

import (
	"crypto/rsa"
	"crypto/x509"
	"math/big"
)

// fermatRounds is how far zlint's e_rsa_fermat_factorization goes.
const fermatRounds = 100

// fermat refuses a modulus whose primes are so near each other that Fermat's
// method finds them at once (BR 6.1.1.3, "flawed generation").
func fermat(cert *x509.Certificate) string {
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		return ""
	}
	if closePrimes(key.N) {
		return "the RSA primes are so near each other that the key can be factored (BR 6.1.1.3)"
	}
	return ""
}

// closePrimes looks for a² - n = b² with a from ⌈√n⌉ on. Only one square root is
// taken: from round to round b² grows by 2a + 1, and most numbers are seen not
// to be squares by their remainder.
func closePrimes(n *big.Int) bool {
	a := new(big.Int).Sqrt(n)
	if new(big.Int).Mul(a, a).Cmp(n) < 0 {
		a.Add(a, big.NewInt(1))
	}
	square := new(big.Int).Mul(a, a)
	square.Sub(square, n)
	step := new(big.Int).Lsh(a, 1)
	step.Add(step, big.NewInt(1))
	two := big.NewInt(2)
	filter := newSquareFilter()
	for range fermatRounds {
		if filter.maybe(square) && isSquare(square) {
			return true
		}
		square.Add(square, step)
		step.Add(step, two)
	}
	return false
}

func isSquare(n *big.Int) bool {
	root := new(big.Int).Sqrt(n)
	return root.Mul(root, root).Cmp(n) == 0
}

// filterModulus = 64·63·65·11·17·19·23·31 fits a word; a number that is no
// square passes all eight remainders about once in 3,500 times.
const filterModulus = 64 * 63 * 65 * 11 * 17 * 19 * 23 * 31

type squareFilter struct {
	modulus, remainder *big.Int
}

func newSquareFilter() *squareFilter {
	return &squareFilter{modulus: big.NewInt(filterModulus), remainder: new(big.Int)}
}

// maybe is false only for numbers that are no squares.
func (f *squareFilter) maybe(n *big.Int) bool {
	rest := f.remainder.Mod(n, f.modulus).Uint64()
	for _, m := range [...]uint64{64, 63, 65, 11, 17, 19, 23, 31} {
		if !quadraticResidue(rest%m, m) {
			return false
		}
	}
	return true
}

func quadraticResidue(r, m uint64) bool {
	for i := range m/2 + 1 {
		if i*i%m == r {
			return true
		}
	}
	return false
}
