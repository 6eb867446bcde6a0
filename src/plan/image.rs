//! PURE. A plan as one flat run of bytes that the child can execute from in place. Never allocates on the
//! reading side, never trusts an offset it has not looked at.
//!
//! ```text
//! head (fixed words, checksum first) | limits | processors | pointers | groups | offsets | texts
//! ```
//!
//! Only counts and the offsets of texts are stored; where a section starts follows from the counts, so
//! sections cannot overlap. `pointers` is empty room for `argv` and `envp`, which the child fills in its own
//! copy; variables that hold its number end in room for the digits. Numbers are little-endian.

use super::{
    ExecPlan, MOST_ARGUMENT_BYTES, MOST_CANDIDATES, MOST_CPUS, MOST_GROUPS, MOST_PATH_BYTES,
    MOST_PID_VARIABLES, MOST_SOCKETS, Resource, Unfit,
};

const MAGIC: u32 = 0x3256_5053;
const HEAD_WORDS: usize = 24;
const HEAD_BYTES: usize = HEAD_WORDS * 4;
/// The checksum covers everything behind itself.
const CHECKED_FROM: usize = 8;
const LIMIT_BYTES: usize = 24;
const MOST_LIMITS: usize = Resource::ALL.len();

/// Room for the decimal digits of a process number and the terminator.
pub const PID_ROOM: usize = 12;

/// Bytes of an image, at most: texts, paths, and eight bytes of pointer and four of offset for each text.
pub const MOST_IMAGE_BYTES: usize = 16 << 20;

const HAS_IDENTITY: u32 = 1;
const HAS_NICE: u32 = 2;
const HAS_OOM: u32 = 4;
const HAS_TERMINAL: u32 = 8;
const ALL_FLAGS: u32 = HAS_IDENTITY | HAS_NICE | HAS_OOM | HAS_TERMINAL;

/// What is wrong with an image. The number travels as the detail of a failure report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Bad {
    /// Fewer bytes than a head has, or more than any plan.
    Size = 1,
    /// Not an image of this version.
    Version,
    /// The bytes are not those that were written.
    Checksum,
    /// A count beyond its limit, or counts that do not add up to the length.
    Count,
    /// A text that does not lie where texts are.
    Text,
    /// No room for the process number where it is said to be.
    Room,
    /// A number outside its range.
    Value,
    /// Not as many sockets as came beside the plan.
    Sockets,
}

impl Bad {
    /// Every kind, in the order of their codes.
    pub const ALL: [Self; 8] = [
        Self::Size,
        Self::Version,
        Self::Checksum,
        Self::Count,
        Self::Text,
        Self::Room,
        Self::Value,
        Self::Sockets,
    ];

    /// The kind with this code.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|bad| *bad as u32 == code)
    }

    /// The end of a sentence that starts with "the plan".
    pub const fn words(self) -> &'static str {
        match self {
            Self::Size => "has an impossible size",
            Self::Version => "is of another version",
            Self::Checksum => "has a wrong checksum",
            Self::Count => "has counts that do not add up",
            Self::Text => "has a text out of place",
            Self::Room => "has no room for the process number",
            Self::Value => "has a number out of range",
            Self::Sockets => "does not fit the sockets that came with it",
        }
    }
}

/// Numbers of the head, in their order behind magic, checksum and length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Head {
    flags: u32,
    uid: u32,
    gid: u32,
    bounding: u64,
    ambient: u64,
    umask: u32,
    nice: i32,
    oom_score_adj: i32,
    sockets: u32,
    directory: u32,
    limits: u32,
    cpu_words: u32,
    groups: u32,
    argc: u32,
    envc: u32,
    patches: u32,
    candidates: u32,
}

impl Head {
    fn words(&self) -> [u32; 19] {
        [
            self.flags,
            self.uid,
            self.gid,
            self.bounding as u32,
            (self.bounding >> 32) as u32,
            self.ambient as u32,
            (self.ambient >> 32) as u32,
            self.umask,
            self.nice.cast_unsigned(),
            self.oom_score_adj.cast_unsigned(),
            self.sockets,
            self.directory,
            self.limits,
            self.cpu_words,
            self.groups,
            self.argc,
            self.envc,
            self.patches,
            self.candidates,
        ]
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let word = |index: usize| u32_at(bytes, (3 + index) * 4);
        let wide = |index: usize| Some(u64::from(word(index)?) | u64::from(word(index + 1)?) << 32);
        Some(Self {
            flags: word(0)?,
            uid: word(1)?,
            gid: word(2)?,
            bounding: wide(3)?,
            ambient: wide(5)?,
            umask: word(7)?,
            nice: word(8)?.cast_signed(),
            oom_score_adj: word(9)?.cast_signed(),
            sockets: word(10)?,
            directory: word(11)?,
            limits: word(12)?,
            cpu_words: word(13)?,
            groups: word(14)?,
            argc: word(15)?,
            envc: word(16)?,
            patches: word(17)?,
            candidates: word(18)?,
        })
    }

    fn counts_are_possible(&self) -> bool {
        let most = [
            (self.limits, MOST_LIMITS),
            (self.cpu_words, MOST_CPUS / 64),
            (self.groups, MOST_GROUPS),
            (self.argc, MOST_ARGUMENT_BYTES),
            (self.envc, MOST_ARGUMENT_BYTES),
            (self.patches, MOST_PID_VARIABLES),
            (self.candidates, MOST_CANDIDATES),
            (self.sockets, MOST_SOCKETS),
        ];
        most.iter().all(|(count, most)| *count as usize <= *most) && self.argc > 0 && self.candidates > 0
    }

    fn values_are_possible(&self) -> bool {
        let identity = self.flags & HAS_IDENTITY == 0
            || self.uid != u32::MAX
                && self.gid != u32::MAX
                && self.ambient & !self.bounding == 0
                && (self.uid == 0 || self.bounding == self.ambient);
        self.flags & !ALL_FLAGS == 0
            && self.umask <= 0o777
            && (-20..=19).contains(&self.nice)
            && (-1000..=1000).contains(&self.oom_score_adj)
            && identity
    }
}

/// Where everything in an image is: counts and offsets that have been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    head: Head,
    cpus_at: usize,
    pointers_at: usize,
    groups_at: usize,
    argv_at: usize,
    env_at: usize,
    patches_at: usize,
    candidates_at: usize,
    texts_at: usize,
}

impl Layout {
    fn of(head: Head) -> Self {
        let cpus_at = HEAD_BYTES + head.limits as usize * LIMIT_BYTES;
        let pointers_at = cpus_at + head.cpu_words as usize * 8;
        let groups_at = pointers_at + (head.argc as usize + head.envc as usize + 2) * 8;
        let argv_at = groups_at + head.groups as usize * 4;
        let env_at = argv_at + head.argc as usize * 4;
        let patches_at = env_at + head.envc as usize * 4;
        let candidates_at = patches_at + head.patches as usize * 4;
        let texts_at = candidates_at + head.candidates as usize * 4;
        Self { head, cpus_at, pointers_at, groups_at, argv_at, env_at, patches_at, candidates_at, texts_at }
    }

    /// Looks at every byte that will be relied on. Allocates nothing.
    ///
    /// After this, every text of the image ends in a NUL inside of it, the pointer room overlaps nothing, and
    /// every patch room is empty.
    pub fn parse(bytes: &[u8]) -> Result<Self, Bad> {
        if bytes.len() < HEAD_BYTES || bytes.len() > MOST_IMAGE_BYTES {
            return Err(Bad::Size);
        }
        if u32_at(bytes, 0) != Some(MAGIC) {
            return Err(Bad::Version);
        }
        if u32_at(bytes, 4) != bytes.get(CHECKED_FROM..).map(crc32fast::hash) {
            return Err(Bad::Checksum);
        }
        let head = Head::read(bytes).ok_or(Bad::Size)?;
        if u32_at(bytes, 8).map(|length| length as usize) != Some(bytes.len()) || !head.counts_are_possible()
        {
            return Err(Bad::Count);
        }
        let layout = Self::of(head);
        // The last byte ends every text that has no terminator of its own.
        if layout.texts_at >= bytes.len() || bytes.last() != Some(&0) {
            return Err(Bad::Count);
        }
        let texts = layout.texts_at..bytes.len();
        let offsets = (layout.argv_at..layout.texts_at).step_by(4);
        if !offsets
            .chain([directory_word()])
            .all(|at| u32_at(bytes, at).is_some_and(|offset| texts.contains(&(offset as usize))))
        {
            return Err(Bad::Text);
        }
        for index in 0..head.patches as usize {
            let at = layout.patch(bytes, index).ok_or(Bad::Room)?;
            let room = bytes.get(at..at + PID_ROOM).ok_or(Bad::Room)?;
            let name_ends = at.checked_sub(1).and_then(|before| bytes.get(before)) == Some(&b'=');
            if !name_ends || room.iter().any(|byte| *byte != 0) {
                return Err(Bad::Room);
            }
        }
        if !head.values_are_possible()
            || !(0..head.limits as usize).all(|at| layout.limit(bytes, at).is_some())
        {
            return Err(Bad::Value);
        }
        Ok(layout)
    }

    /// User and group to become.
    pub fn ids(&self) -> Option<(u32, u32)> {
        (self.head.flags & HAS_IDENTITY != 0).then_some((self.head.uid, self.head.gid))
    }

    /// Capabilities that stay in the bounding set.
    pub fn bounding(&self) -> u64 {
        self.head.bounding
    }

    /// Capabilities to raise in the ambient set.
    pub fn ambient(&self) -> u64 {
        self.head.ambient
    }

    /// Permission bits taken from new files.
    pub fn umask(&self) -> u32 {
        self.head.umask
    }

    /// -20 to 19; None leaves it.
    pub fn nice(&self) -> Option<i32> {
        (self.head.flags & HAS_NICE != 0).then_some(self.head.nice)
    }

    /// -1000 to 1000; None leaves it.
    pub fn oom_score_adj(&self) -> Option<i32> {
        (self.head.flags & HAS_OOM != 0).then_some(self.head.oom_score_adj)
    }

    /// Whether standard input is to control the session.
    pub fn has_terminal(&self) -> bool {
        self.head.flags & HAS_TERMINAL != 0
    }

    /// How many sockets travel beside the plan.
    pub fn sockets(&self) -> usize {
        self.head.sockets as usize
    }

    /// How many limits there are.
    pub fn limits(&self) -> usize {
        self.head.limits as usize
    }

    /// Resource, soft and hard limit.
    pub fn limit(&self, bytes: &[u8], index: usize) -> Option<(Resource, u64, u64)> {
        let at = HEAD_BYTES + index * LIMIT_BYTES;
        let resource = Resource::from_code(u32_at(bytes, at)?)?;
        let (soft, hard) = (u64_at(bytes, at + 8)?, u64_at(bytes, at + 16)?);
        (index < self.limits() && soft <= hard).then_some((resource, soft, hard))
    }

    /// The bytes of the processor mask, a multiple of eight; empty leaves it.
    pub fn cpus<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.cpus_at..self.pointers_at).unwrap_or_default()
    }

    /// Where the room for pointers starts (a multiple of 8) and how many fit: arguments, a null, variables, a null.
    pub fn pointers(&self) -> (usize, usize) {
        (self.pointers_at, (self.groups_at - self.pointers_at) / 8)
    }

    /// Where the groups start (a multiple of 4) and how many there are.
    pub fn groups(&self) -> (usize, usize) {
        (self.groups_at, self.head.groups as usize)
    }

    /// How many arguments there are.
    pub fn argc(&self) -> usize {
        self.head.argc as usize
    }

    /// How many variables there are.
    pub fn envc(&self) -> usize {
        self.head.envc as usize
    }

    /// How many places there are to look for the program.
    pub fn candidates(&self) -> usize {
        self.head.candidates as usize
    }

    /// Offset of the text of the working directory.
    pub fn directory(&self) -> usize {
        self.head.directory as usize
    }

    /// Offset of the text of an argument, or of a variable for indices from `argc` on.
    pub fn word(&self, bytes: &[u8], index: usize) -> Option<usize> {
        if index >= self.argc() + self.envc() {
            return None;
        }
        u32_at(bytes, self.argv_at + index * 4).map(|offset| offset as usize)
    }

    /// Offset of the text of a place to look for the program.
    pub fn candidate(&self, bytes: &[u8], index: usize) -> Option<usize> {
        if index >= self.candidates() {
            return None;
        }
        u32_at(bytes, self.candidates_at + index * 4).map(|offset| offset as usize)
    }

    /// Offset of the room for the digits of the process number ([`PID_ROOM`] bytes).
    pub fn patch(&self, bytes: &[u8], index: usize) -> Option<usize> {
        if index >= self.head.patches as usize {
            return None;
        }
        u32_at(bytes, self.patches_at + index * 4).map(|offset| offset as usize)
    }
}

/// Has the checksum find out what the processor can do, once and for all children cloned later: asking takes
/// instructions that a virtual machine traps, and would be the dearest step of a start.
pub fn warm_up() {
    std::hint::black_box(crc32fast::hash(std::hint::black_box(&[])));
}

const fn directory_word() -> usize {
    (3 + 11) * 4
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

/// Texts one after the other, and where each starts.
struct Texts {
    base: usize,
    bytes: Vec<u8>,
}

impl Texts {
    fn put(&mut self, text: &str) -> u32 {
        let at = self.base + self.bytes.len();
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        at as u32
    }
}

impl ExecPlan {
    /// The plan as bytes for a memfd, or why it can not be carried out.
    pub fn encode(&self) -> Result<Vec<u8>, Unfit> {
        self.check()?;
        let mut head = self.head();
        let layout = Layout::of(head);
        let mut texts = Texts { base: layout.texts_at, bytes: Vec::new() };
        head.directory = texts.put(&self.directory);
        let argv: Vec<u32> = self.argv.iter().map(|word| texts.put(word)).collect();
        let mut env: Vec<u32> = self.env.iter().map(|pair| texts.put(pair)).collect();
        let mut patches = Vec::new();
        for name in &self.pid_variables {
            env.push(texts.put(&format!("{name}=")));
            patches.push((texts.base + texts.bytes.len() - 1) as u32);
            texts.bytes.extend([0; PID_ROOM]);
        }
        let candidates: Vec<u32> = self.candidates.iter().map(|path| texts.put(path)).collect();
        let mut image = Vec::with_capacity(layout.texts_at + texts.bytes.len());
        image.resize(CHECKED_FROM, 0);
        push_words(&mut image, &[(layout.texts_at + texts.bytes.len()) as u32]);
        push_words(&mut image, &head.words());
        image.resize(HEAD_BYTES, 0);
        for limit in &self.limits {
            push_words(&mut image, &[limit.resource as u32, 0]);
            image.extend(limit.soft.to_le_bytes());
            image.extend(limit.hard.to_le_bytes());
        }
        image.extend(cpu_mask(&self.cpus, head.cpu_words).iter().flat_map(|word| word.to_le_bytes()));
        image.resize(layout.groups_at, 0);
        push_words(&mut image, self.identity.as_ref().map_or(&[], |identity| &identity.groups));
        for offsets in [&argv, &env, &patches, &candidates] {
            push_words(&mut image, offsets);
        }
        image.extend(texts.bytes);
        let checksum = crc32fast::hash(image.get(CHECKED_FROM..).unwrap_or_default());
        image.splice(..CHECKED_FROM, [MAGIC, checksum].iter().flat_map(|word| word.to_le_bytes()));
        Ok(image)
    }

    fn head(&self) -> Head {
        let mut head = Head {
            umask: self.umask,
            sockets: self.sockets.len() as u32,
            limits: self.limits.len() as u32,
            cpu_words: self.cpus.iter().max().map_or(0, |highest| highest / 64 + 1),
            argc: self.argv.len() as u32,
            envc: (self.env.len() + self.pid_variables.len()) as u32,
            patches: self.pid_variables.len() as u32,
            candidates: self.candidates.len() as u32,
            ..Head::default()
        };
        if let Some(identity) = &self.identity {
            head.flags |= HAS_IDENTITY;
            (head.uid, head.gid) = (identity.uid, identity.gid);
            (head.bounding, head.ambient) = (identity.bounding, identity.ambient);
            head.groups = identity.groups.len() as u32;
        }
        if let Some(nice) = self.nice {
            head.flags |= HAS_NICE;
            head.nice = nice;
        }
        if let Some(score) = self.oom_score_adj {
            head.flags |= HAS_OOM;
            head.oom_score_adj = score;
        }
        if self.terminal {
            head.flags |= HAS_TERMINAL;
        }
        head
    }
}

fn push_words(image: &mut Vec<u8>, words: &[u32]) {
    image.extend(words.iter().flat_map(|word| word.to_le_bytes()));
}

fn cpu_mask(cpus: &[u32], words: u32) -> Vec<u64> {
    let mut mask = vec![0_u64; words as usize];
    for cpu in cpus {
        if let Some(word) = mask.get_mut(*cpu as usize / 64) {
            *word |= 1 << (cpu % 64);
        }
    }
    mask
}

/// Has everything that a reader finds out once about this processor found out now. In a virtual machine every
/// such question is answered by the host; clones of this process inherit the answers.
pub fn know_processor() {
    std::hint::black_box(crc32fast::hash(std::hint::black_box(&[0; 64])));
}

const _: () = assert!(MOST_IMAGE_BYTES > 13 * MOST_ARGUMENT_BYTES + (MOST_CANDIDATES + 1) * MOST_PATH_BYTES);
