package state

// Keys beside current in the bucket of sync.
const (
	keyPartners     = "partners"
	keyPublications = "publications"
)

// Partners are the certificates of partners that are to be filed for everybody
// on this machine.
type Partners struct {
	Digest       string   `json:"digest"`
	Certificates [][]byte `json:"certificates,omitempty"`
	// Had says that there ever were any, so that there may be some to take away.
	Had bool `json:"had,omitempty"`
}

// Publication is the value for the directory of an enrollment, with what it is
// about: the SHA-256, in hex, of the signer's certificate and of the one that
// others are to encrypt to.
type Publication struct {
	Value     []byte `json:"value"`
	Leaf      string `json:"leaf"`
	EncryptTo string `json:"encrypt_to"`
}

// SavePartners keeps p.
func (d *DB) SavePartners(p Partners) error {
	return d.update("save partners", func(t *transaction) error { return t.put(bucketSync, keyPartners, p) })
}

// Partners gives what [DB.SavePartners] kept, the zero value if there was nothing yet.
func (d *DB) Partners() (Partners, error) {
	var p Partners
	err := d.view("read partners", func(t *transaction) error {
		_, err := t.get(bucketSync, keyPartners, &p)
		return err
	})
	return p, err
}

// SavePublications keeps all of them, by enrollment ID, in the place of those before.
func (d *DB) SavePublications(all map[string]Publication) error {
	return d.update("save publications", func(t *transaction) error { return t.put(bucketSync, keyPublications, all) })
}

// Publications gives what [DB.SavePublications] kept.
func (d *DB) Publications() (map[string]Publication, error) {
	all := map[string]Publication{}
	err := d.view("read publications", func(t *transaction) error {
		_, err := t.get(bucketSync, keyPublications, &all)
		return err
	})
	return all, err
}
