//! Pure. What was listed: keys, sizes and times, held compactly.
//!
//! A million keys are held in one buffer: their text, and 32 bytes for each.

/// What a listing says about versions of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VersionColumn {
    /// The listing has one entry a key, so a key that was overwritten cannot be seen.
    #[default]
    Absent,
    /// The listing has each version of each key.
    Present,
}

/// One object, or one version of an object, but for its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedObject {
    /// Size, in bytes.
    pub size: u64,
    /// When it was written, as the listing says: seconds since 1970.
    pub modified: i64,
    /// Whether it is what a reader of the key gets today. False for a version that was overwritten or deleted.
    pub is_latest: bool,
}

/// Objects of a bucket, in the order in which they were listed.
#[derive(Debug, Default)]
pub struct BucketListing {
    keys: String,
    ends: Vec<usize>,
    objects: Vec<ListedObject>,
    /// Whether the listing has each version of a key.
    pub versions: VersionColumn,
}

impl BucketListing {
    /// Adds one object. Delete markers, folders (keys that end in `/`) are the caller's to leave out.
    pub fn push(&mut self, key: &str, object: ListedObject) {
        self.keys.push_str(key);
        self.ends.push(self.keys.len());
        self.objects.push(object);
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether nothing was listed.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The key of an object.
    ///
    /// # Panics
    /// There is no object with this index.
    pub fn key(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.keys[start..self.ends[index]]
    }

    /// The object with this index.
    ///
    /// # Panics
    /// There is no object with this index.
    pub fn object(&self, index: usize) -> ListedObject {
        self.objects[index]
    }
}
