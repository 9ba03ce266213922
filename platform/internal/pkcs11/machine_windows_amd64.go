package pkcs11

import "debug/pe"

const ownMachine = pe.IMAGE_FILE_MACHINE_AMD64
