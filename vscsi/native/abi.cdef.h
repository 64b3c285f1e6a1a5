/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ABI: everything that two processes must agree on byte for byte, once.
 * Knows layouts and numbers; no function, no policy, no pointer.
 * Read by gcc and by cffi, hence no guard, no include, no expression in a #define.
 * Big-endian fields are byte structs: alignment 1, and nobody can add to a raw value by mistake.
 */

typedef struct { uint8_t b[2]; } be16_t;
typedef struct { uint8_t b[4]; } be32_t;
typedef struct { uint8_t b[8]; } be64_t;

enum vscsi_abi {
    VSCSI_PAGE_SIZE = 4096,
    VSCSI_PAGE_SHIFT = 12,
    VSCSI_SECTOR_SIZE = 512,
    VSCSI_MAX_RING_PAGES = 16,
    VSCSI_MAX_RING_ORDER = 4,
    VSCSI_RING_HEADER = 64,
    VSCSI_SRP_SLOT = 248,
    VSCSI_BLKIF_SLOT = 112,
    VSCSI_MAX_REGIONS = 16,
    VSCSI_TARGET_DOMID = 0,
    VSCSI_GREF_RESERVED = 8,
    VSCSI_CDB_MAX = 200,
    VSCSI_SENSE_MAX = 208,
    VSCSI_MAX_TRANSFER = 8388608
};

/* ---- shared ring: Xen public io/ring.h; slots follow the header ---- */

struct vscsi_sring {
    uint32_t req_prod;
    uint32_t req_event;
    uint32_t rsp_prod;
    uint32_t rsp_event;
    uint32_t advice;           /* of the answering side; Xen's private bytes. 0: none; enum vscsi_advice */
    uint8_t pad[44];
};

/* Worth no trust: what it is about is only the advised side's own CPU time. */
enum vscsi_advice {
    VSCSI_ADVICE_SLEEP = 1     /* whoever waits should not spin: the I/O under way wants the CPU */
};

/* Private state of the side that makes requests. Never in shared memory. */
struct vscsi_front_ring {
    struct vscsi_sring *sring;
    uint32_t req_prod_pvt;
    uint32_t req_published;
    uint32_t rsp_cons;
    uint32_t nr_ents;
    uint32_t slot_nbytes;
};

/* Private state of the side that answers them. */
struct vscsi_back_ring {
    struct vscsi_sring *sring;
    uint32_t rsp_prod_pvt;
    uint32_t rsp_published;
    uint32_t req_cons;
    uint32_t nr_ents;
    uint32_t slot_nbytes;
    uint32_t advised;
};

/* ---- grant table v1: Xen public grant_table.h ---- */

struct vscsi_grant_entry {
    uint16_t flags;
    uint16_t domid;
    uint32_t frame;
};

enum vscsi_gtf {
    GTF_INVALID = 0,
    GTF_PERMIT_ACCESS = 1,
    GTF_ACCEPT_TRANSFER = 2,
    GTF_TRANSITIVE = 3,
    GTF_TYPE_MASK = 3,
    GTF_READONLY = 4,
    GTF_READING = 8,
    GTF_WRITING = 16,
    GTF_SUB_PAGE = 256
};

/* ---- XenBus states: Xen public io/xenbus.h ---- */

enum vscsi_xenbus_state {
    XENBUS_UNKNOWN = 0,
    XENBUS_INITIALISING = 1,
    XENBUS_INIT_WAIT = 2,
    XENBUS_INITIALISED = 3,
    XENBUS_CONNECTED = 4,
    XENBUS_CLOSING = 5,
    XENBUS_CLOSED = 6,
    XENBUS_RECONFIGURING = 7,
    XENBUS_RECONFIGURED = 8
};

/* ---- SRP r16a information units ---- */

enum srp_opcode {
    SRP_LOGIN_REQ = 0x00,
    SRP_TSK_MGMT = 0x01,
    SRP_CMD = 0x02,
    SRP_I_LOGOUT = 0x03,
    SRP_CRED_RSP = 0x41,
    SRP_AER_RSP = 0x42,
    SRP_T_LOGOUT = 0x80,
    SRP_CRED_REQ = 0x81,
    SRP_AER_REQ = 0x82,
    SRP_LOGIN_RSP = 0xc0,
    SRP_RSP = 0xc1,
    SRP_LOGIN_REJ = 0xc2
};

enum srp_buffer_format {
    SRP_FMT_NONE = 0,
    SRP_FMT_DIRECT = 1,
    SRP_FMT_INDIRECT = 2,
    SRP_FMT_IMMEDIATE = 3,
    SRP_BUF_DIRECT = 2,
    SRP_BUF_INDIRECT = 4
};

enum srp_login_flags {
    SRP_MULTICHAN_SINGLE = 0,
    SRP_MULTICHAN_MULTI = 1,
    SRP_MULTICHAN_MASK = 3,
    SRP_LOSOLNT = 0x10,
    SRP_CRSOLNT = 0x20,
    SRP_AESOLNT = 0x40,
    SRP_MULTICHAN_NO_CHAN = 0,
    SRP_MULTICHAN_TERMINATED = 1,
    SRP_MULTICHAN_MAINTAINED = 2,
    SRP_SOLNTSUP = 0x10
};

enum srp_login_rej_reason {
    SRP_REJ_UNABLE_TO_ESTABLISH_CHANNEL = 0x00010000,
    SRP_REJ_INSUFFICIENT_RESOURCES = 0x00010001,
    SRP_REJ_IT_IU_LENGTH_TOO_LARGE = 0x00010002,
    SRP_REJ_UNABLE_ASSOCIATE_CHANNEL = 0x00010003,
    SRP_REJ_UNSUPPORTED_DESCRIPTOR_FMT = 0x00010004,
    SRP_REJ_MULTI_CHANNEL_UNSUPPORTED = 0x00010005,
    SRP_REJ_CHANNEL_LIMIT_REACHED = 0x00010006
};

enum srp_logout_reason {
    SRP_TLO_NO_REASON = 0,
    SRP_TLO_INACTIVE = 1,
    SRP_TLO_INVALID_IU_TYPE = 2,
    SRP_TLO_SPURIOUS_RESPONSE = 3,
    SRP_TLO_MULTI_CHANNEL = 4,
    SRP_TLO_UNSUPPORTED_OUT_FMT = 6,
    SRP_TLO_UNSUPPORTED_IN_FMT = 7,
    SRP_TLO_INVALID_OUT_COUNT = 8,
    SRP_TLO_INVALID_IN_COUNT = 9
};

enum srp_task_attribute {
    SRP_TSK_SIMPLE = 0,
    SRP_TSK_HEAD_OF_QUEUE = 1,
    SRP_TSK_ORDERED = 2,
    SRP_TSK_ACA = 4
};

enum srp_tsk_mgmt_function {
    SRP_TMF_ABORT_TASK = 0x01,
    SRP_TMF_ABORT_TASK_SET = 0x02,
    SRP_TMF_CLEAR_TASK_SET = 0x04,
    SRP_TMF_LUN_RESET = 0x08,
    SRP_TMF_CLEAR_ACA = 0x40
};

enum srp_response_code {
    SRP_RESP_COMPLETE = 0x00,
    SRP_RESP_FIELDS_INVALID = 0x02,
    SRP_RESP_NOT_SUPPORTED = 0x04,
    SRP_RESP_FAILED = 0x05
};

enum srp_rsp_flags {
    SRP_RSP_RSPVALID = 0x01,
    SRP_RSP_SNSVALID = 0x02,
    SRP_RSP_DOOVER = 0x04,
    SRP_RSP_DOUNDER = 0x08,
    SRP_RSP_DIOVER = 0x10,
    SRP_RSP_DIUNDER = 0x20
};

enum srp_solnt {
    SRP_SOLNT = 0x01,
    SRP_SCSOLNT = 0x02,
    SRP_UCSOLNT = 0x04
};

struct srp_direct_buf {
    be64_t va;
    be32_t key;
    be32_t len;
};

struct srp_indirect_buf {
    struct srp_direct_buf table_desc;
    be32_t len;
    /* struct srp_direct_buf desc_list[count] follows */
};

struct srp_login_req {
    uint8_t opcode;
    uint8_t reserved1[7];
    be64_t tag;
    be32_t req_it_iu_len;
    uint8_t reserved20[4];
    be16_t req_buf_fmt;
    uint8_t req_flags;
    uint8_t reserved27[5];
    uint8_t initiator_port_id[16];
    uint8_t target_port_id[16];
};

struct srp_login_rsp {
    uint8_t opcode;
    uint8_t reserved1[3];
    be32_t req_lim_delta;
    be64_t tag;
    be32_t max_it_iu_len;
    be32_t max_ti_iu_len;
    be16_t buf_fmt;
    uint8_t rsp_flags;
    uint8_t reserved27[25];
};

struct srp_login_rej {
    uint8_t opcode;
    uint8_t reserved1[3];
    be32_t reason;
    be64_t tag;
    uint8_t reserved16[8];
    be16_t buf_fmt;
    uint8_t reserved26[6];
};

struct srp_i_logout {
    uint8_t opcode;
    uint8_t reserved1[7];
    be64_t tag;
};

struct srp_t_logout {
    uint8_t opcode;
    uint8_t sol_not;
    uint8_t reserved2[2];
    be32_t reason;
    be64_t tag;
};

struct srp_tsk_mgmt {
    uint8_t opcode;
    uint8_t sol_not;
    uint8_t reserved2[6];
    be64_t tag;
    uint8_t reserved16[4];
    uint8_t lun[8];
    uint8_t reserved28[2];
    uint8_t tsk_mgmt_func;
    uint8_t reserved31;
    be64_t task_tag;
    uint8_t reserved40[8];
};

struct srp_cmd {
    uint8_t opcode;
    uint8_t sol_not;
    uint8_t reserved2[3];
    uint8_t buf_fmt;
    uint8_t data_out_desc_cnt;
    uint8_t data_in_desc_cnt;
    be64_t tag;
    uint8_t reserved16[4];
    uint8_t lun[8];
    uint8_t reserved28;
    uint8_t task_attr;
    uint8_t reserved30;
    uint8_t add_cdb_len;
    uint8_t cdb[16];
    /* additional CDB bytes, data-out descriptor, data-in descriptor follow */
};

struct srp_rsp {
    uint8_t opcode;
    uint8_t sol_not;
    uint8_t reserved2[2];
    be32_t req_lim_delta;
    be64_t tag;
    uint8_t reserved16[2];
    uint8_t flags;
    uint8_t status;
    be32_t data_out_res_cnt;
    be32_t data_in_res_cnt;
    be32_t sense_data_len;
    be32_t resp_data_len;
    /* response data, then sense data follow */
};

struct srp_cred_req {
    uint8_t opcode;
    uint8_t sol_not;
    uint8_t reserved2[2];
    be32_t req_lim_delta;
    be64_t tag;
};

struct srp_cred_rsp {
    uint8_t opcode;
    uint8_t reserved1[7];
    be64_t tag;
};

struct srp_aer_req {
    uint8_t opcode;
    uint8_t sol_not;
    uint8_t reserved2[2];
    be32_t req_lim_delta;
    be64_t tag;
    uint8_t reserved16[4];
    uint8_t lun[8];
    be32_t sense_data_len;
    uint8_t reserved32[4];
    /* sense data follows */
};

struct srp_aer_rsp {
    uint8_t opcode;
    uint8_t reserved1[7];
    be64_t tag;
};

/* ---- blkif: Xen public io/blkif.h, x86_64 ABI, native order ---- */

enum blkif_op {
    BLKIF_OP_READ = 0,
    BLKIF_OP_WRITE = 1,
    BLKIF_OP_WRITE_BARRIER = 2,
    BLKIF_OP_FLUSH_DISKCACHE = 3,
    BLKIF_OP_RESERVED_1 = 4,
    BLKIF_OP_DISCARD = 5,
    BLKIF_OP_INDIRECT = 6
};

enum blkif_status {
    BLKIF_RSP_OKAY = 0,
    BLKIF_RSP_ERROR = -1,
    BLKIF_RSP_EOPNOTSUPP = -2
};

enum blkif_limits {
    BLKIF_MAX_SEGMENTS_PER_REQUEST = 11,
    BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST = 8,
    BLKIF_SEGS_PER_INDIRECT_PAGE = 512,
    BLKIF_SECTORS_PER_PAGE = 8,
    BLKIF_DISCARD_SECURE = 1
};

enum blkif_vdisk_info {
    VDISK_CDROM = 1,
    VDISK_REMOVABLE = 2,
    VDISK_READONLY = 4
};

struct blkif_segment {
    uint32_t gref;
    uint8_t first_sect;
    uint8_t last_sect;
    uint16_t padding;
};

struct blkif_request {
    uint8_t operation;
    uint8_t nr_segments;
    uint16_t handle;
    uint32_t padding;
    uint64_t id;
    uint64_t sector_number;
    struct blkif_segment seg[11];
};

struct blkif_request_discard {
    uint8_t operation;
    uint8_t flag;
    uint16_t handle;
    uint32_t padding;
    uint64_t id;
    uint64_t sector_number;
    uint64_t nr_sectors;
};

struct blkif_request_indirect {
    uint8_t operation;
    uint8_t indirect_op;
    uint16_t nr_segments;
    uint32_t padding;
    uint64_t id;
    uint64_t sector_number;
    uint16_t handle;
    uint16_t padding2;
    uint32_t indirect_grefs[8];
    uint32_t padding3;
};

struct blkif_response {
    uint64_t id;
    uint8_t operation;
    uint8_t padding1;
    int16_t status;
    uint32_t padding2;
};
