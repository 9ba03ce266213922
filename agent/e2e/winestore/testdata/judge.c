/* A stranger to our code: finds a certificate by mailbox in the user's store,
 * gets at its key as mail programs do, and signs. crypt32 only.
 *
 *   judge MAILBOX BODY SIGNATURE    detached CMS over BODY
 */
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>
#include <wincrypt.h>

static int fail(const char *what)
{
    fprintf(stderr, "%s: 0x%08lx\n", what, GetLastError());
    return 1;
}

/* The newest certificate whose e-mail address (of its subjectAltName first) is
 * the mailbox. */
static const CERT_CONTEXT *find(HCERTSTORE store, const char *mailbox, int *count)
{
    const CERT_CONTEXT *c = NULL, *best = NULL;
    *count = 0;
    while ((c = CertEnumCertificatesInStore(store, c)) != NULL) {
        char address[512];
        CertGetNameStringA(c, CERT_NAME_EMAIL_TYPE, 0, NULL, address, sizeof address);
        if (lstrcmpiA(address, mailbox) != 0)
            continue;
        ++*count;
        if (best == NULL || CompareFileTime(&c->pCertInfo->NotBefore, &best->pCertInfo->NotBefore) > 0) {
            if (best != NULL)
                CertFreeCertificateContext(best);
            best = CertDuplicateCertificateContext(c);
        }
    }
    return best;
}

static BYTE *read_all(const char *path, DWORD *size)
{
    FILE *f = fopen(path, "rb");
    BYTE *b = malloc(1 << 20);
    if (f == NULL || b == NULL)
        return NULL;
    *size = (DWORD)fread(b, 1, 1 << 20, f);
    fclose(f);
    return b;
}

static int sign(const CERT_CONTEXT *signer, const char *body, const char *out)
{
    CRYPT_SIGN_MESSAGE_PARA para = {0};
    DWORD size, length = 0;
    BYTE *text = read_all(body, &size), *message;
    const BYTE *parts[1] = {text};
    FILE *f;

    if (text == NULL)
        return fail("read body");
    /* The size without the fields for CMS with subject key identifiers. */
    para.cbSize = offsetof(CRYPT_SIGN_MESSAGE_PARA, dwInnerContentType) + sizeof para.dwInnerContentType;
    para.dwMsgEncodingType = X509_ASN_ENCODING | PKCS_7_ASN_ENCODING;
    para.pSigningCert = signer;
    para.HashAlgorithm.pszObjId = szOID_NIST_sha256;
    para.cMsgCert = 1;
    para.rgpMsgCert = &signer;
    if (!CryptSignMessage(&para, TRUE, 1, parts, &size, NULL, &length))
        return fail("CryptSignMessage, for the size");
    message = malloc(length);
    if (!CryptSignMessage(&para, TRUE, 1, parts, &size, message, &length))
        return fail("CryptSignMessage");
    f = fopen(out, "wb");
    if (f == NULL || fwrite(message, 1, length, f) != length || fclose(f) != 0)
        return fail("write signature");
    return 0;
}

int main(int argc, char **argv)
{
    HCERTSTORE store;
    const CERT_CONTEXT *c;
    HCRYPTPROV_OR_NCRYPT_KEY_HANDLE key = 0;
    DWORD spec = 0, size;
    BOOL ours = FALSE;
    WCHAR name[256] = L"";
    int count;

    if (argc != 4)
        return fprintf(stderr, "judge MAILBOX BODY SIGNATURE\n"), 2;
    store = CertOpenStore(CERT_STORE_PROV_SYSTEM_W, 0, 0, CERT_SYSTEM_STORE_CURRENT_USER | CERT_STORE_READONLY_FLAG, L"MY");
    if (store == NULL)
        return fail("CertOpenStore");
    c = find(store, argv[1], &count);
    if (c == NULL)
        return fprintf(stderr, "nobody has a certificate for %s\n", argv[1]), 1;
    size = sizeof name;
    CertGetCertificateContextProperty(c, CERT_FRIENDLY_NAME_PROP_ID, name, &size);
    if (!CryptAcquireCertificatePrivateKey(c, CRYPT_ACQUIRE_SILENT_FLAG | CRYPT_ACQUIRE_COMPARE_KEY_FLAG | CRYPT_ACQUIRE_ALLOW_NCRYPT_KEY_FLAG,
                                           NULL, &key, &spec, &ours))
        return fail("CryptAcquireCertificatePrivateKey");
    printf("certificates %d\nname %ls\nspec %ld\n", count, name, (long)spec);
    if (ours && spec != CERT_NCRYPT_KEY_SPEC)
        CryptReleaseContext(key, 0);
    return sign(c, argv[2], argv[3]);
}
